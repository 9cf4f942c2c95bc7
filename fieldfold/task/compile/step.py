"""The three graphs as pure functions of tensors, in the order of `signature.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fieldfold.errors import CompileError
from fieldfold.params import TensorSpec
from fieldfold.task import signature
from fieldfold.task.authoring import Task
from fieldfold.task.compile import optimizers
from fieldfold.task.compile.model import PreparedModel
from fieldfold.task.compile.outputs import named_outputs
from fieldfold.task.compile.randomness import SeededRandomness
from fieldfold.task.compile.source_lines import defined_at
from fieldfold.task.objectives import PerExample

_Batch: TypeAlias = tuple[list[Tensor], list[Tensor]]

_NORM_EPSILON = 1e-6  # a gradient of zero is not divided by zero


def per_example(what: str, function: PerExample, output: Any, targets: Sequence[Tensor]) -> Tensor:
    """Calls a loss or metric with what the model gave.

    Raises:
        CompileError: when it does not give one floating-point value an example.
    """
    values = function(output, *targets)
    if not isinstance(values, Tensor) or values.dim() != 1 or not values.is_floating_point():
        found = (
            f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        place = f"{where}: " if (where := defined_at(function)) else ""
        raise CompileError(
            f"{place}the {what} gives {found}, not one float an example",
            "leave out the mean over the batch: use reduction='none' and average the other dimensions",
        )
    return values


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as matrix products and a softmax: its fused kernels have no ONNX form, and a dropout of their own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class TaskFunctions:
    """Train, evaluate and predict, each from tensors to tensors.

    How many tensors the graphs of a task take is fixed, so each takes one flat list of positional tensors.
    """

    def __init__(self, task: Task, prepared: PreparedModel, num_inputs: int, num_targets: int) -> None:
        self._task = task
        self._prepared = prepared
        self._num_inputs = num_inputs
        self._num_targets = num_targets
        self._num_state = len(signature.optimizer_shapes(task.optimizer, 1))

    def train(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """State, frozen tensors, anchor, batch, weights, scalars and noise -> next state and the loss before it."""
        rest = iter(tensors)
        parameters = next(rest).detach()
        buffers = self._buffers(rest)
        optimizer_state = list(islice(rest, self._num_state))
        model = {**self._constants(rest), **buffers}
        anchor = next(rest)
        batch = self._batch(rest)
        weights, learning_rate, proximal, clip_norm, seed, *noise = rest
        privacy = self._task.privacy
        self._prepared.set_training(self._prepared.module)
        with SeededRandomness(seed), plain_attention():
            if privacy is None:
                gradient, loss = self._gradient(parameters, model, batch, weights)
            else:
                total, loss = self._clipped_sum(parameters, model, batch, weights, privacy.norm)
                gradient = (total + noise[0]) / float(self._task.batch_size)
        with torch.no_grad():
            gradient = self._pulled(gradient, parameters, anchor, proximal)
            gradient = optimizers.clip_gradient(gradient, clip_norm)
            parameters, optimizer_state = optimizers.update(
                self._task.optimizer, self._prepared.trained, parameters, gradient, optimizer_state, learning_rate
            )
            moved = [model[name].detach().reshape(-1) for name in buffers]
        return (parameters, *([torch.cat(moved)] if moved else []), *optimizer_state, loss.detach())

    def evaluate(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Model, inputs and targets -> loss and metrics of every example."""
        rest = iter(tensors)
        model = self._model(rest)
        inputs, targets = self._batch(rest)
        self._prepared.module.eval()
        with torch.no_grad(), plain_attention():
            output = self._forward(model, inputs)
            loss = per_example("loss", self._task.loss, output, targets)
            columns = [
                per_example(f"metric {measure.metric.name}", measure.values, output, targets)
                for measure in self._task.metrics
            ]
        return (loss, *columns)

    def predict(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Model and inputs -> the model's outputs."""
        rest = iter(tensors)
        model = self._model(rest)
        self._prepared.module.eval()
        with torch.no_grad(), plain_attention():
            return tuple(named_outputs(self._forward(model, list(rest))).values())

    # -- gradients ---------------------------------------------------------------------------------------------------

    def _gradient(
        self, parameters: Tensor, model: dict[str, Tensor], batch: _Batch, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of the weighted mean loss; buffers that the forward pass replaces are replaced in `model` too."""
        trained = {name: tensor.requires_grad_() for name, tensor in self._trained(parameters).items()}
        model |= trained
        losses, shares = self._losses(model, batch), weights / weights.sum()
        # a parameter that the loss does not see keeps still, as it does with torch's optimizers
        found = torch.autograd.grad(
            losses, list(trained.values()), grad_outputs=shares, allow_unused=True, materialize_grads=True
        )
        return torch.cat([gradient.reshape(-1) for gradient in found]), (losses * shares).sum()

    def _clipped_sum(
        self, parameters: Tensor, model: dict[str, Tensor], batch: _Batch, weights: Tensor, norm: float
    ) -> tuple[Tensor, Tensor]:
        """Each example's gradient clipped to `norm`, their weighted sum, and the mean loss."""

        def of_one(flat: Tensor, inputs: list[Tensor], targets: list[Tensor]) -> Tensor:
            alone = ([tensor.unsqueeze(0) for tensor in inputs], [tensor.unsqueeze(0) for tensor in targets])
            return self._losses({**model, **self._trained(flat)}, alone).squeeze(0)

        gradients, losses = vmap(grad_and_value(of_one), (None, 0, 0), randomness="different")(parameters, *batch)
        lengths = torch.sqrt((gradients * gradients).sum(1))
        shares = weights * torch.clamp(norm / (lengths + _NORM_EPSILON), max=1.0)
        return shares @ gradients, (losses * weights).sum() / weights.sum()

    def _pulled(self, gradient: Tensor, parameters: Tensor, anchor: Tensor, proximal: Tensor) -> Tensor:
        """With the gradient of the proximal term, which knows nothing of local parameters."""
        if len(anchor) == len(parameters):
            return gradient + proximal * (parameters - anchor)
        sizes = [len(anchor), len(parameters) - len(anchor)]
        (shared, local), (own, _) = torch.split(gradient, sizes), torch.split(parameters, sizes)
        return torch.cat([shared + proximal * (own - anchor), local])

    def _losses(self, model: dict[str, Tensor], batch: _Batch) -> Tensor:
        inputs, targets = batch
        return per_example("loss", self._task.loss, self._forward(model, inputs), targets)

    # -- from flat vectors to a module's tensors ---------------------------------------------------------------------

    def _model(self, rest: Iterator[Tensor]) -> dict[str, Tensor]:
        parameters = next(rest)
        return {**self._trained(parameters), **self._buffers(rest), **self._constants(rest)}

    def _trained(self, flat: Tensor) -> dict[str, Tensor]:
        return _cut(flat, self._prepared.trained)

    def _buffers(self, rest: Iterator[Tensor]) -> dict[str, Tensor]:
        if not self._prepared.buffers:
            return {}
        # copies, since the forward pass writes into them
        return {name: tensor.clone() for name, tensor in _cut(next(rest), self._prepared.buffers).items()}

    def _constants(self, rest: Iterator[Tensor]) -> dict[str, Tensor]:
        frozen = {spec.name: next(rest) for spec in self._prepared.frozen.tensors}
        return {**frozen, **{name: tensor.clone() for name, tensor in self._prepared.constants.items()}}

    def _batch(self, rest: Iterator[Tensor]) -> _Batch:
        return list(islice(rest, self._num_inputs)), list(islice(rest, self._num_targets))

    def _forward(self, model: dict[str, Tensor], inputs: Sequence[Tensor]) -> Any:
        """The model's output; a buffer that the forward pass replaces is replaced in `model` too."""
        return functional_call(self._prepared.module, model, tuple(inputs))


def _cut(flat: Tensor, tensors: Sequence[TensorSpec]) -> dict[str, Tensor]:
    pieces = torch.split(flat, [spec.size for spec in tensors])
    return {spec.name: piece.reshape(spec.shape) for spec, piece in zip(tensors, pieces, strict=True)}
