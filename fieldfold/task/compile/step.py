"""The three graphs as pure functions of flat lists of tensors, in the order of `signature.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fieldfold.errors import CompileError
from fieldfold.task import signature
from fieldfold.task.authoring import Task
from fieldfold.task.compile import optimizers
from fieldfold.task.compile.model import PreparedModel
from fieldfold.task.compile.randomness import SeededRandomness
from fieldfold.task.objectives import PerExample


def per_example(what: str, function: PerExample, output: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Calls a loss or metric.

    Raises:
        CompileError: when it does not give one floating-point value an example.
    """
    values = function(output, *targets)
    if not isinstance(values, Tensor) or values.dim() != 1 or not values.is_floating_point():
        found = (
            f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise CompileError(
            f"the {what} gives {found}, not one float an example",
            "leave out the mean over the batch: use reduction='none' and average the other dimensions",
        )
    return values


class TaskFunctions:
    """Train, evaluate and predict, each from tensors to tensors.

    The sizes of a model's tensor lists are fixed, so one flat list of positional tensors serves all three graphs.
    """

    def __init__(self, task: Task, prepared: PreparedModel, num_inputs: int, num_targets: int) -> None:
        self._task = task
        self._prepared = prepared
        self._layout = prepared.layout
        self._num_inputs = num_inputs
        self._num_targets = num_targets
        self._num_trained = sum(spec.kind == "parameter" for spec in prepared.layout.tensors)
        self._num_state = len(signature.optimizer_shapes(task.optimizer, prepared.layout))

    def train(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """State, anchors, inputs, targets and scalars -> next state and the mean loss before the step."""
        rest = iter(tensors)
        trained = [tensor.detach().requires_grad_() for tensor in islice(rest, self._num_trained)]
        buffers = [tensor.clone() for tensor in islice(rest, len(self._layout.tensors) - self._num_trained)]
        optimizer_state = list(islice(rest, self._num_state))
        anchors = list(islice(rest, self._num_trained))
        inputs, targets = self._batch(rest)
        learning_rate, proximal, clip_norm, seed = rest
        tensors_by_name = self._named([*trained, *buffers])
        self._prepared.module.train()
        with SeededRandomness(seed):
            output = self._forward(tensors_by_name, inputs)
            loss = per_example("loss", self._task.loss, output, targets).mean()
        # a parameter that the loss does not see keeps still, as it does with torch's optimizers
        found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            parameters = [tensor.detach() for tensor in trained]
            gradients = [g + proximal * (p - a) for g, p, a in zip(found, parameters, anchors, strict=True)]
            gradients = optimizers.clip_gradients(gradients, clip_norm)
            parameters, optimizer_state = optimizers.update(
                self._task.optimizer, parameters, gradients, optimizer_state, learning_rate
            )
        moved = [tensors_by_name[name].detach() for name in self._moving_buffers()]
        return (*parameters, *moved, *optimizer_state, loss.detach())

    def evaluate(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors, inputs and targets -> loss and metrics of every example."""
        rest = iter(tensors)
        tensors_by_name = self._named(list(islice(rest, len(self._layout.tensors))))
        inputs, targets = self._batch(rest)
        self._prepared.module.eval()
        with torch.no_grad():
            output = self._forward(tensors_by_name, inputs)
            loss = per_example("loss", self._task.loss, output, targets)
            columns = [
                per_example(f"metric {measure.metric.name}", measure.values, output, targets)
                for measure in self._task.metrics
            ]
        return (loss, *columns)

    def predict(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors and inputs -> the model's output."""
        rest = iter(tensors)
        tensors_by_name = self._named(list(islice(rest, len(self._layout.tensors))))
        self._prepared.module.eval()
        with torch.no_grad():
            return (self._forward(tensors_by_name, list(rest)),)

    def train_outputs(self) -> list[str]:
        """Names of what `train` returns."""
        state = [f"p.{spec.name}" for spec in self._layout.tensors if spec.kind == "parameter"]
        state += [f"b.{name}" for name in self._moving_buffers()]
        state += [f"s.{index}" for index in range(self._num_state)]
        return [*(signature.NEXT + name for name in state), signature.LOSS]

    def _moving_buffers(self) -> list[str]:
        """The layout's buffers without the frozen parameters, which no step changes."""
        buffers = [spec.name for spec in self._layout.tensors if spec.kind == "buffer"]
        return [name for name in buffers if name not in self._prepared.frozen]

    def _batch(self, rest: Iterator[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return list(islice(rest, self._num_inputs)), list(islice(rest, self._num_targets))

    def _named(self, model_tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        names = [spec.name for spec in self._layout.tensors]
        constants = {name: tensor.clone() for name, tensor in self._prepared.constants.items()}
        return {**dict(zip(names, model_tensors, strict=True)), **constants}

    def _forward(self, tensors_by_name: dict[str, Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """The model's output; a buffer that the forward pass replaces is replaced in `tensors_by_name` too."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no ONNX form
            output = functional_call(self._prepared.module, tensors_by_name, tuple(inputs))
        if not isinstance(output, Tensor):
            raise CompileError(
                f"the model's forward gives a {type(output).__name__}", "let forward return one tensor, batch first"
            )
        return output
