"""Trains, evaluates and predicts a bundle on ONNX Runtime: numpy and onnxruntime, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fieldfold.errors import BundleError, DataError
from fieldfold.params import Vector
from fieldfold.task import signature
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Array, Manifest, SectionName
from fieldfold.task.onnx_session import GraphSession, failures_named
from fieldfold.task.runtime import Batch, Evaluation
from fieldfold.task.self_check import read_batch, run_self_check
from fieldfold.task.signature import Port

MIN_TRAINING_BATCH = 2
"""Of one example there is no variance, which BatchNorm divides by."""


class OnnxRuntime:
    """The runtime for boxes without torch. Each graph is loaded when it is first needed.

    Args:
        bundle: what to run.
        threads: threads within an operator; one is best for small models, and leaves the gateway its other cores.
        reason: why this runtime was chosen, for status.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, *, threads: int = 1, reason: str = "asked for") -> None:
        self.reason = reason
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._threads = threads
        self._training: _Training | None = None
        self._evaluate: GraphSession | None = None
        self._predict: GraphSession | None = None

    def begin(self, parameters: Vector, *, keep_optimizer: bool = False) -> None:
        """Starts a local run from the global `parameters` (float32, layout.num_params), also the proximal anchor.

        Raises:
            BundleError: when the train graph cannot be loaded or is not what the manifest says.
            ValueError: when the vector has another length.
        """
        if self._training is None:
            # a buffer that no step changes, such as a frozen weight, need not come out
            buffers = [spec.name for spec in self._manifest.layout.tensors if spec.kind == "buffer"]
            optional = [f"{signature.NEXT}b.{name}" for name in buffers]
            session = self._open("train.onnx", signature.train_ports(self._manifest), optional)
            self._training = _Training(self._manifest, session)
        self._training.begin(parameters, keep_optimizer=keep_optimizer)

    def step(
        self, batch: Batch, *, learning_rate: float, seed: int, proximal: float = 0.0, clip_norm: float = 0.0
    ) -> float:
        """One optimizer step; returns the mean training loss of the batch before it, which may be NaN.

        Raises:
            BundleError: when ONNX Runtime fails.
            DataError: when the batch is not what the task takes.
        """
        if self._training is None:
            raise RuntimeError("begin() comes before step()")
        return self._training.step(batch, learning_rate, seed, proximal, clip_norm)

    def parameters(self) -> Vector:
        """A copy of the present local parameters."""
        if self._training is None:
            raise RuntimeError("begin() comes before parameters()")
        return self._training.parameters()

    def evaluate(self, parameters: Vector, data: Batch) -> Evaluation:
        """Loss and metrics of `parameters` on all rows of `data`, batched within.

        Raises:
            BundleError: when the graph is not what the manifest says, or ONNX Runtime fails.
            DataError: when the data is not what the task takes, or empty.
        """
        manifest = self._manifest
        if self._evaluate is None:
            self._evaluate = self._open("evaluate.onnx", signature.evaluate_ports(manifest))
        rows = _conform(data, (*manifest.inputs, *manifest.targets))
        tensors = _tensor_feeds(manifest, parameters)
        names = ("loss", *(f"metric.{index}" for index in range(len(manifest.metrics))))
        sums = np.zeros(len(names))
        count = 0
        for chunk, size in _chunks(rows, manifest.batch_size):
            columns = self._evaluate.run({**tensors, **chunk})
            sums += [columns[name].sum(dtype=np.float64) for name in names]
            count += size
        loss, *means = (sums / count).tolist()
        metrics = {metric.name: metric.value(mean) for metric, mean in zip(manifest.metrics, means, strict=True)}
        return Evaluation(loss, metrics, count)

    def predict(self, parameters: Vector, inputs: Batch) -> NDArray[Any]:
        """The model's output, batch dimension first.

        Raises:
            BundleError: when the graph is not what the manifest says, or ONNX Runtime fails.
            DataError: when the inputs are not what the task takes, or empty.
        """
        manifest = self._manifest
        if self._predict is None:
            self._predict = self._open("predict.onnx", signature.predict_ports(manifest))
        rows = _conform(inputs, manifest.inputs)
        tensors = _tensor_feeds(manifest, parameters)
        outputs = [
            self._predict.run({**tensors, **chunk})[signature.OUTPUT]
            for chunk, _ in _chunks(rows, manifest.batch_size)
        ]
        return np.concatenate(outputs)

    def self_check(self) -> None:
        """Repeats the manifest's self-check on this machine.

        Raises:
            BundleError: when the losses differ by more than its tolerance, or ONNX Runtime fails.
        """
        run_self_check(self._manifest, self, self._bundle.initial_parameters(), read_batch(self._bundle))
        if self._training is not None:
            self._training.forget_optimizer()

    def _open(
        self, name: SectionName, ports: tuple[Sequence[Port], Sequence[Port]], optional: Sequence[str] = ()
    ) -> GraphSession:
        session = GraphSession(name, self._bundle.section(name), self._threads)
        session.check_inputs(ports[0])
        session.check_outputs(ports[1], optional)
        return session


class _Side:
    """One of the two places of the training state: arrays, and ONNX Runtime's values over the same memory."""

    def __init__(self, manifest: Manifest) -> None:
        self.vector = np.zeros(manifest.layout.num_params, np.float32)
        self.optimizer = [np.zeros(shape, np.float32) for shape in manifest.optimizer_state]
        names = [port.name for port in signature.tensor_ports(manifest.layout)]
        arrays = dict(zip(names, manifest.layout.unflatten(self.vector).values(), strict=True))
        arrays.update({f"s.{index}": array for index, array in enumerate(self.optimizer)})
        self.values = {name: _shared_value(array) for name, array in arrays.items()}


class _Training:
    """The training state on two sides: each step reads one and writes the other, so that nothing is copied."""

    def __init__(self, manifest: Manifest, session: GraphSession) -> None:
        self._manifest = manifest
        self._session = session
        self._arrays = (*manifest.inputs, *manifest.targets)
        self._scalars = {port.name: np.zeros((), port.dtype) for port in signature.SCALARS}
        self._loss = np.zeros((), np.float32)
        self._anchor = np.zeros(manifest.layout.num_params, np.float32)
        self._sides = (_Side(manifest), _Side(manifest))
        self._now = 0
        self._bindings = [self._bind(self._sides[0], self._sides[1]), self._bind(self._sides[1], self._sides[0])]

    def begin(self, parameters: Vector, *, keep_optimizer: bool) -> None:
        if parameters.shape != self._anchor.shape:
            raise ValueError(f"a vector of shape {parameters.shape} does not fit {self._anchor.size} parameters")
        for vector in (self._anchor, *(side.vector for side in self._sides)):
            vector[:] = parameters
        if not keep_optimizer:
            self.forget_optimizer()

    def forget_optimizer(self) -> None:
        for array in self._sides[self._now].optimizer:
            array.fill(0)

    def step(self, batch: Batch, learning_rate: float, seed: int, proximal: float, clip_norm: float) -> float:
        rows = _conform(batch, self._arrays, minimum=MIN_TRAINING_BATCH)
        self._scalars[signature.LEARNING_RATE][()] = learning_rate
        self._scalars[signature.PROXIMAL][()] = proximal
        self._scalars[signature.CLIP_NORM][()] = clip_norm
        self._scalars[signature.SEED][()] = seed
        binding = self._bindings[self._now]
        with failures_named("run train.onnx"):
            for name, array in rows.items():
                if name in self._session.inputs:
                    binding.bind_cpu_input(name, array)
            self._session.native.run_with_iobinding(binding)
        self._now = 1 - self._now
        return float(self._loss)

    def parameters(self) -> Vector:
        return self._sides[self._now].vector.copy()

    def _bind(self, source: _Side, sink: _Side) -> onnxruntime.IOBinding:
        values = dict(source.values)
        names = [port.name for port in signature.anchor_ports(self._manifest.layout)]
        anchors = self._manifest.layout.unflatten(self._anchor)
        values.update({name: _shared_value(anchors[name.removeprefix("g.")]) for name in names})
        values.update({name: _shared_value(array) for name, array in self._scalars.items()})
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


def _tensor_feeds(manifest: Manifest, parameters: Vector) -> dict[str, NDArray[Any]]:
    names = [port.name for port in signature.tensor_ports(manifest.layout)]
    return dict(zip(names, manifest.layout.unflatten(parameters).values(), strict=True))


def _conform(data: Batch, arrays: Sequence[Array], minimum: int = 1) -> dict[str, NDArray[Any]]:
    """The arrays by name, contiguous and of the manifest's dtype, all with the same number of rows."""
    rows: dict[str, NDArray[Any]] = {}
    count = None
    for array in arrays:
        if array.name not in data:
            raise DataError(f"the batch has no array {array.name}", f"give it with shape (rows, *{array.shape})")
        values = np.ascontiguousarray(data[array.name], array.dtype)
        count = values.shape[0] if count is None and values.ndim else count
        if values.shape != (count, *array.shape):
            raise DataError(
                f"array {array.name} has shape {values.shape}, the task takes (rows, *{array.shape})",
                "give every array of a batch the same number of rows, and windows as the task's data says",
            )
        rows[array.name] = values
    if count is None or count < minimum:
        raise DataError(f"a batch of {count} rows is too small", f"give at least {minimum}")
    return rows


def _chunks(rows: dict[str, NDArray[Any]], size: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        chunk = {name: array[start : start + size] for name, array in rows.items()}
        yield chunk, min(size, count - start)
