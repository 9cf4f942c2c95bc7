"""Trains, evaluates and predicts a bundle on ONNX Runtime: numpy and onnxruntime, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fieldfold.errors import BundleError
from fieldfold.params import Vector
from fieldfold.task import signature
from fieldfold.task.batches import chunks, columns, conform, evaluation, training_batch
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Manifest, SectionName
from fieldfold.task.onnx_session import GraphSession, check_providers, failures_named
from fieldfold.task.runtime import Batch, Evaluation
from fieldfold.task.self_check import read_batch, run_self_check
from fieldfold.task.signature import Port
from fieldfold.task.state import ModelState, anchored, joined, local_part, shared_part


class OnnxRuntime:
    """The runtime for boxes without torch. Each graph is loaded when it is first needed.

    Args:
        bundle: what to run.
        providers: ONNX Runtime's execution providers, the preferred first.
        threads: threads within an operator; one is best for small models, and leaves the gateway its other cores.
        reason: why this runtime was chosen, for status.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        reason: str = "asked for",
    ) -> None:
        check_providers(providers)
        self.reason = reason
        self.device = ", ".join(provider.removesuffix("ExecutionProvider").lower() for provider in providers)
        self._providers = list(providers)
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._threads = threads
        self._first_local = bundle.initial_local()
        self._frozen = {signature.FROZEN + name: values for name, values in bundle.frozen_values().items()}
        self._training: _Training | None = None
        self._start = self._first_local
        self._evaluate: GraphSession | None = None
        self._predict: GraphSession | None = None

    def begin(
        self,
        parameters: Vector,
        *,
        local: Vector | None = None,
        anchor: Vector | None = None,
        keep_optimizer: bool = False,
    ) -> None:
        """Starts a local run from `parameters` (float32, layout.num_params), pulled towards `anchor`, else the same.

        Raises:
            BundleError: when the train graph cannot be loaded or is not what the manifest says.
            ValueError: when a vector has another length.
        """
        if self._training is None:
            session = self._open("train.onnx", signature.train_ports(self._manifest))
            self._training = _Training(self._manifest, session, self._frozen)
        pulled_to = None if anchor is None else anchored(self._manifest, anchor)
        self._training.begin(self._state(parameters, local), pulled_to, keep_optimizer=keep_optimizer)
        self._start = parameters

    def step(  # noqa: PLR0913 -- all that a step is told
        self,
        batch: Batch,
        *,
        learning_rate: float,
        seed: int,
        proximal: float = 0.0,
        clip_norm: float = 0.0,
        weights: NDArray[np.float32] | None = None,
        noise: Vector | None = None,
    ) -> float:
        """One optimizer step; returns the mean training loss of the batch before it, which may be NaN.

        Raises:
            BundleError: when ONNX Runtime fails.
            DataError: when the batch is not what the task takes.
        """
        rows = training_batch(self._manifest, batch, weights)
        scalars = {
            signature.LEARNING_RATE: learning_rate,
            signature.PROXIMAL: proximal,
            signature.CLIP_NORM: clip_norm,
            signature.SEED: seed,
        }
        return self._begun().step(rows, scalars, noise)

    def parameters(self) -> Vector:
        """A copy of the present shared parameters."""
        return shared_part(self._manifest, self._begun().state())

    def delta(self) -> Vector:
        """The present shared parameters minus those that the run began from, which must not have changed since."""
        difference = self.parameters()
        difference -= self._start
        return difference

    def local(self) -> Vector:
        """A copy of the present local values, empty where the task has none."""
        return local_part(self._manifest, self._begun().state())

    def evaluate(self, parameters: Vector, data: Batch, local: Vector | None = None) -> Evaluation:
        """Loss and metrics of `parameters` on all rows of `data`, batched within.

        Raises:
            BundleError: when the graph is not what the manifest says, or ONNX Runtime fails.
            DataError: when the data is not what the task takes, or empty.
        """
        manifest = self._manifest
        if self._evaluate is None:
            self._evaluate = self._open("evaluate.onnx", signature.evaluate_ports(manifest))
        rows = conform(data, (*manifest.inputs, *manifest.targets))
        model = self._model(parameters, local)
        names = columns(manifest)
        values: list[NDArray[np.float32]] = []
        for chunk, left in chunks(rows, manifest.batch_size):
            found = self._evaluate.run({**model, **chunk}, last=left <= manifest.batch_size)
            values.append(np.stack([found[name] for name in names]))
        return evaluation(manifest, rows, np.concatenate(values, axis=1))

    def predict(self, parameters: Vector, inputs: Batch, local: Vector | None = None) -> dict[str, NDArray[Any]]:
        """The model's outputs by the manifest's names, batch dimension first.

        Raises:
            BundleError: when the graph is not what the manifest says, or ONNX Runtime fails.
            DataError: when the inputs are not what the task takes, or empty.
        """
        manifest = self._manifest
        if self._predict is None:
            self._predict = self._open("predict.onnx", signature.predict_ports(manifest))
        rows = conform(inputs, manifest.inputs)
        model = self._model(parameters, local)
        outputs = [
            self._predict.run({**model, **chunk}, last=left <= manifest.batch_size)
            for chunk, left in chunks(rows, manifest.batch_size)
        ]
        return {array.name: np.concatenate([output[array.name] for output in outputs]) for array in manifest.outputs}

    def self_check(self) -> None:
        """Repeats the manifest's self-check on this machine.

        Raises:
            BundleError: when the losses differ by more than its tolerance, or ONNX Runtime fails.
        """
        run_self_check(self._manifest, self, self._bundle.initial_parameters(), read_batch(self._bundle))
        if self._training is not None:
            self._training.forget_optimizer()

    def _open(self, name: SectionName, ports: tuple[Sequence[Port], Sequence[Port]]) -> GraphSession:
        session = GraphSession(name, self._bundle.section(name), self._providers, self._threads)
        session.check_inputs(ports[0])
        session.check_outputs(ports[1])
        return session

    def _begun(self) -> _Training:
        if self._training is None:
            raise RuntimeError("begin() comes first")
        return self._training

    def _state(self, parameters: Vector, local: Vector | None) -> ModelState:
        return joined(self._manifest, parameters, self._first_local if local is None else local)

    def _model(self, parameters: Vector, local: Vector | None) -> dict[str, NDArray[Any]]:
        """What the graphs are fed beside a batch."""
        state = self._state(parameters, local)
        return {signature.PARAMETERS: state.parameters, signature.BUFFERS: state.buffers, **self._frozen}


class _Side:
    """One of the two places of the training state: arrays, and ONNX Runtime's values over the same memory."""

    def __init__(self, manifest: Manifest) -> None:
        shapes = signature.state_shapes(manifest)
        self.arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self.values = {name: _shared_value(array) for name, array in self.arrays.items()}


class _Training:
    """The training state on two sides: each step reads one and writes the other, so that nothing is copied."""

    def __init__(self, manifest: Manifest, session: GraphSession, frozen: dict[str, NDArray[Any]]) -> None:
        self._session = session
        self._loss = np.zeros((), np.float32)
        self._sides = (_Side(manifest), _Side(manifest))
        # what stays as it is from one step to the next, or is written over in place
        self._kept: dict[str, NDArray[Any]] = {
            **{port.name: np.zeros((), port.dtype) for port in signature.SCALARS},
            signature.ANCHOR: np.zeros(manifest.layout.num_trained, np.float32),
            signature.NOISE: np.zeros(manifest.num_trained if manifest.privacy else 0, np.float32),
            **frozen,
        }
        self._now = 0
        self._bindings = [self._bind(self._sides[0], self._sides[1]), self._bind(self._sides[1], self._sides[0])]

    def begin(self, state: ModelState, pulled_to: Vector | None, *, keep_optimizer: bool) -> None:
        arrays = self._sides[self._now].arrays
        for name, values in zip((signature.PARAMETERS, signature.BUFFERS), state, strict=True):
            if values.size:
                arrays[name][:] = values
        anchor = self._kept[signature.ANCHOR]
        anchor[:] = state.parameters[: anchor.size] if pulled_to is None else pulled_to
        if not keep_optimizer:
            self.forget_optimizer()

    def forget_optimizer(self) -> None:
        for name, array in self._sides[self._now].arrays.items():
            if name not in (signature.PARAMETERS, signature.BUFFERS):
                array.fill(0)

    def step(self, rows: dict[str, NDArray[Any]], scalars: dict[str, float], noise: Vector | None) -> float:
        for name, value in scalars.items():
            self._kept[name][()] = value
        if self._kept[signature.NOISE].size:
            self._kept[signature.NOISE][:] = 0 if noise is None else noise
        binding = self._bindings[self._now]
        with failures_named("run train.onnx"):
            for name, array in rows.items():
                if name in self._session.inputs:
                    binding.bind_cpu_input(name, array)
            self._session.native.run_with_iobinding(binding)
        self._now = 1 - self._now
        return float(self._loss)

    def state(self) -> ModelState:
        """Of this moment; the next step but one writes over it."""
        arrays = self._sides[self._now].arrays
        nothing = np.zeros(0, np.float32)
        return ModelState(arrays[signature.PARAMETERS], arrays.get(signature.BUFFERS, nothing))

    def _bind(self, source: _Side, sink: _Side) -> onnxruntime.IOBinding:
        values = {**source.values, **{name: _shared_value(array) for name, array in self._kept.items() if array.size}}
        results = {signature.NEXT + name: value for name, value in sink.values.items()}
        results[signature.LOSS] = _shared_value(self._loss)
        binding = self._session.native.io_binding()
        for name in self._session.inputs:
            if name in values:
                binding.bind_ortvalue_input(name, values[name])
        for name in self._session.outputs:
            binding.bind_ortvalue_output(name, results[name])
        return binding


def _shared_value(array: NDArray[Any]) -> onnxruntime.OrtValue:
    """A value over the memory of `array`.

    Raises:
        BundleError: when this onnxruntime copies instead.
    """
    value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if value.data_ptr() != array.ctypes.data:
        raise BundleError(
            f"onnxruntime {onnxruntime.__version__} copies arrays that it should share", "install another version"
        )
    return value
