"""Trains, evaluates and predicts a bundle on torch: on a CPU or a CUDA device, from the programs in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldfold.params import Vector
from fieldfold.task import program, signature
from fieldfold.task.batches import chunks, columns, conform, evaluation, training_batch
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Manifest
from fieldfold.task.program import GraphName
from fieldfold.task.runtime import Batch, Evaluation
from fieldfold.task.self_check import read_batch, run_self_check
from fieldfold.task.signature import Port
from fieldfold.task.state import ModelState, anchored, joined, local_part, shared_part
from fieldfold.task.torch_assembly import constant_tensor
from fieldfold.task.torch_program import TorchProgram, failures_named


def wake(device: str) -> None:
    """Lets torch and the device's driver take the memory that they take before anything is computed."""
    torch.ones(2, 2, device=device).mm(torch.ones(2, 2, device=device)).sum().item()


class TorchRuntime:
    """The runtime for boxes with torch. Each program is made ready when it is first needed.

    The state stays on the device from `begin` to the end of the run; out come one loss a step, and one vector.

    Args:
        bundle: what to run.
        device: `cpu`, `cuda` or another that torch knows.
        threads: threads within an operator on a CPU; they are the whole process's.
        reason: why this runtime was chosen, for status.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, *, device: str = "cpu", threads: int = 1, reason: str = "asked for") -> None:
        self.reason = reason
        self.device = device
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._device = torch.device(device)
        torch.set_num_threads(threads)
        if self._device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa would miss the self-check
        self._first_local = bundle.initial_local()
        self._frozen = {
            signature.FROZEN + name: _to_device(values, self._device)
            for name, values in bundle.frozen_values().items()
        }
        self._programs = program.decode(bundle.section("programs.torch"))
        with failures_named("read the constants of programs.torch"):
            self._constants = [constant_tensor(constant, self._device) for constant in self._programs.constants]
        self._training: _Training | None = None
        self._evaluate: TorchProgram | None = None
        self._predict: TorchProgram | None = None

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
            BundleError: when the train program is not sound or not what the manifest says.
            ValueError: when a vector has another length.
        """
        if self._training is None:
            ready = self._open("train", signature.train_ports(self._manifest))
            self._training = _Training(self._manifest, ready, self._frozen, self._device)
        pulled_to = None if anchor is None else anchored(self._manifest, anchor)
        self._training.begin(self._state(parameters, local), pulled_to, keep_optimizer=keep_optimizer)

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
            BundleError: when torch fails.
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
        """The present shared parameters minus those that the run began from; computed on the device."""
        return shared_part(self._manifest, self._begun().difference())

    def local(self) -> Vector:
        """A copy of the present local values, empty where the task has none."""
        return local_part(self._manifest, self._begun().state())

    def evaluate(self, parameters: Vector, data: Batch, local: Vector | None = None) -> Evaluation:
        """Loss and metrics of `parameters` on all rows of `data`, batched within.

        Raises:
            BundleError: when the program is not what the manifest says, or torch fails.
            DataError: when the data is not what the task takes, or empty.
        """
        manifest = self._manifest
        ports = signature.evaluate_ports(manifest)
        if self._evaluate is None:
            self._evaluate = self._open("evaluate", ports)
        rows = conform(data, (*manifest.inputs, *manifest.targets))
        model = self._model(parameters, local)
        names = columns(manifest)
        values: list[Tensor] = []
        for chunk, left in chunks(rows, manifest.batch_size):
            found = self._evaluate.run({**model, **_uploaded(chunk, self._device)})
            self._evaluate.expect(found, ports[1], min(left, manifest.batch_size))
            values.append(torch.stack([found[name] for name in names]))
        return evaluation(manifest, rows, torch.cat(values, 1).cpu().numpy())

    def predict(self, parameters: Vector, inputs: Batch, local: Vector | None = None) -> dict[str, NDArray[Any]]:
        """The model's outputs by the manifest's names, batch dimension first.

        Raises:
            BundleError: when the program is not what the manifest says, or torch fails.
            DataError: when the inputs are not what the task takes, or empty.
        """
        manifest = self._manifest
        ports = signature.predict_ports(manifest)
        if self._predict is None:
            self._predict = self._open("predict", ports)
        rows = conform(inputs, manifest.inputs)
        model = self._model(parameters, local)
        outputs: list[dict[str, NDArray[Any]]] = []
        for chunk, left in chunks(rows, manifest.batch_size):
            found = self._predict.run({**model, **_uploaded(chunk, self._device)})
            self._predict.expect(found, ports[1], min(left, manifest.batch_size))
            outputs.append({name: tensor.cpu().numpy() for name, tensor in found.items()})
        return {array.name: np.concatenate([output[array.name] for output in outputs]) for array in manifest.outputs}

    def self_check(self) -> None:
        """Repeats the manifest's self-check on this machine.

        Raises:
            BundleError: when the losses differ by more than its tolerance, or torch fails.
        """
        run_self_check(self._manifest, self, self._bundle.initial_parameters(), read_batch(self._bundle))
        self._begun().forget_optimizer()

    def _begun(self) -> _Training:
        if self._training is None:
            raise RuntimeError("begin() comes first")
        return self._training

    def _open(self, name: GraphName, ports: tuple[Sequence[Port], Sequence[Port]]) -> TorchProgram:
        ready = TorchProgram(name, self._programs, self._constants, self._device)
        ready.check(*ports)
        return ready

    def _state(self, parameters: Vector, local: Vector | None) -> ModelState:
        return joined(self._manifest, parameters, self._first_local if local is None else local)

    def _model(self, parameters: Vector, local: Vector | None) -> dict[str, Tensor]:
        """What the programs are fed beside a batch."""
        return {**_model_tensors(self._state(parameters, local), self._device), **self._frozen}


class _Training:
    """The training state, on the device."""

    def __init__(
        self, manifest: Manifest, ready: TorchProgram, frozen: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self._program = ready
        self._device = device
        self._outputs = signature.train_ports(manifest)[1]
        self._optimizer_shapes = manifest.optimizer_state
        self._num_shared = manifest.layout.num_trained
        self._scalars = {
            port.name: torch.zeros((), dtype=getattr(torch, port.dtype), device=device) for port in signature.SCALARS
        }
        self._kept = {**frozen, **self._scalars}
        if manifest.privacy is not None:
            self._silence = torch.zeros(manifest.num_trained, device=device)
        self._start: dict[str, Tensor] = {}
        self._state: dict[str, Tensor] = {}
        self.forget_optimizer()

    def begin(self, state: ModelState, pulled_to: Vector | None, *, keep_optimizer: bool) -> None:
        self._start = _model_tensors(state, self._device)
        self._state |= self._start
        start = self._start[signature.PARAMETERS][: self._num_shared]
        self._kept[signature.ANCHOR] = start if pulled_to is None else _to_device(pulled_to, self._device)
        if not keep_optimizer:
            self.forget_optimizer()

    def forget_optimizer(self) -> None:
        for index, shape in enumerate(self._optimizer_shapes):
            self._state[f"s.{index}"] = torch.zeros(shape, device=self._device)

    def step(self, rows: Mapping[str, NDArray[Any]], scalars: Mapping[str, float], noise: Vector | None) -> float:
        for name, value in scalars.items():
            self._scalars[name].fill_(value)
        uploaded = _uploaded(rows, self._device)
        if signature.NOISE in self._program.inputs:
            uploaded[signature.NOISE] = self._silence if noise is None else _to_device(noise, self._device)
        found = self._program.run({**self._state, **self._kept, **uploaded})
        self._program.expect(found, self._outputs, len(rows[signature.WEIGHTS]))
        loss = found.pop(signature.LOSS)
        self._state.update({name.removeprefix(signature.NEXT): tensor for name, tensor in found.items()})
        return float(loss)

    def state(self) -> ModelState:
        return _model_state({name: self._state[name] for name in self._start})

    def difference(self) -> ModelState:
        """From what the run began with."""
        return _model_state({name: self._state[name] - start for name, start in self._start.items()})


def _model_tensors(state: ModelState, device: torch.device) -> dict[str, Tensor]:
    """By the programs' names; a vector that would be empty is not there."""
    named = zip((signature.PARAMETERS, signature.BUFFERS), state, strict=True)
    return {name: _to_device(values, device) for name, values in named if values.size}


def _model_state(tensors: Mapping[str, Tensor]) -> ModelState:
    """The one copy to the host."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return ModelState(arrays[signature.PARAMETERS], arrays.get(signature.BUFFERS, np.zeros(0, np.float32)))


def _uploaded(rows: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    return {name: _to_device(array, device) for name, array in rows.items()}


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)
