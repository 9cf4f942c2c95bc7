"""What a graph is measured against: the author's module in torch, with torch's own autograd and optimizers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fieldfold.task.authoring import Task
from fieldfold.task.batches import filled
from fieldfold.task.compile.model import PreparedModel, tensors_of
from fieldfold.task.compile.outputs import named_outputs
from fieldfold.task.compile.randomness import SeededRandomness
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.compile.step import per_example, plain_attention
from fieldfold.task.manifest import Optimizer
from fieldfold.task.signature import WEIGHTS

SHAKE = 1e-6
"""Relative change of the parameters, more than the rounding of float32 comes to in a forward pass."""
DIRECTIONS = 3


class ReferenceRun:
    """A local run, independent of the traced step; in float64, or in float32 to see what float32 can hold.

    Attributes:
        metrics: the task's.
    """

    def __init__(
        self, task: Task, prepared: PreparedModel, arrays: Arrays, dtype: torch.dtype = torch.float64
    ) -> None:
        self.metrics = task.metrics
        self._task = task
        self._prepared = prepared
        self._arrays = arrays
        self._dtype = dtype
        self._module = copy.deepcopy(prepared.module).to(dtype)
        self._loss = copy.deepcopy(task.loss).to(dtype) if isinstance(task.loss, nn.Module) else task.loss
        present = tensors_of(self._module)
        self._trained = {spec.name: cast("nn.Parameter", present[spec.name]) for spec in prepared.trained}
        shared = prepared.layout.offsets.keys()
        self._anchors = {name: p.detach().clone() for name, p in self._trained.items() if name in shared}
        chosen = task.optimizer
        self._decaying = [p for p in self._trained.values() if chosen.decay_vectors or p.dim() > 1]
        spared = [p for p in self._trained.values() if not chosen.decay_vectors and p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": self._decaying}, {"params": spared, "weight_decay": 0.0}]
        self._optimizer = torch_optimizer(chosen, groups)

    def step(  # noqa: PLR0913 -- all that a step is told
        self,
        batch: dict[str, NDArray[Any]],
        *,
        learning_rate: float,
        seed: int,
        proximal: float,
        clip_norm: float,
        weights: NDArray[np.float32] | None = None,
        noise: NDArray[np.float32] | None = None,
    ) -> float:
        """One optimizer step; the mean loss before it."""
        with _default_dtype(self._dtype), plain_attention():
            loss = self._backward(batch, seed, weights, noise)
            for name, parameter in self._trained.items():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                pull = proximal * (parameter.detach() - self._anchors[name]) if name in self._anchors else 0.0
                parameter.grad = gradient + pull
            if clip_norm:
                torch.nn.utils.clip_grad_norm_(self._trained.values(), clip_norm, foreach=False)
            self._descend(learning_rate)
            return loss

    def unevenness(
        self, batch: dict[str, NDArray[Any]], *, seed: int, weights: NDArray[np.float32] | None = None
    ) -> Iterator[float]:
        """How far the gradient jumps within SHAKE of the present parameters, in several directions; nothing changes.

        It is the gradient's second difference over its length: almost 0 where the loss is smooth.
        """
        at = {name: p.detach().clone() for name, p in self._trained.items()}
        rng = torch.Generator().manual_seed(seed)
        here = self._gradient_at(at, batch, seed, weights)
        for _ in range(DIRECTIONS):
            steps = {name: SHAKE * values * torch.randn(values.shape, generator=rng) for name, values in at.items()}
            right, left = (
                self._gradient_at(
                    {name: at[name] + side * step for name, step in steps.items()}, batch, seed, weights
                )
                for side in (1, -1)
            )
            yield float((right - 2 * here + left).norm() / here.norm().clamp(min=1e-30))

    def values(self) -> dict[str, NDArray[np.float64]]:
        """The tensors that a step changes, by name: shared and local, parameters and buffers."""
        present = tensors_of(self._module)
        names = [spec.name for spec in (*self._prepared.trained, *self._prepared.buffers)]
        return {name: present[name].detach().double().numpy().copy() for name in names}

    def load(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes over tensors by name."""
        present = tensors_of(self._module)
        with torch.no_grad():
            for name, array in values.items():
                present[name].copy_(torch.from_numpy(array))

    def evaluate(self, batch: dict[str, NDArray[Any]]) -> list[float]:
        """Means of loss and metric columns."""
        with _default_dtype(self._dtype), torch.no_grad(), plain_attention():
            inputs, targets = self._tensors(batch)
            output = self._module.eval()(*inputs)
            functions = [self._loss, *(measure.values for measure in self.metrics)]
            return [float(per_example("loss or metric", f, output, targets).mean()) for f in functions]

    def predict(self, batch: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
        """The model's outputs by the manifest's names."""
        with _default_dtype(self._dtype), torch.no_grad(), plain_attention():
            return named_outputs(self._module.eval()(*self._tensors(batch)[0]))

    def _gradient_at(
        self,
        values: dict[str, Tensor],
        batch: dict[str, NDArray[Any]],
        seed: int,
        weights: NDArray[np.float32] | None,
    ) -> Tensor:
        """Flat, at these parameters; the module is put back."""
        tensors = tensors_of(self._module)
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        with torch.no_grad():
            for name, value in values.items():
                tensors[name].copy_(value)
        with _default_dtype(self._dtype), plain_attention():
            self._backward(batch, seed, weights, None)
        with torch.no_grad():
            for name, value in before.items():
                tensors[name].copy_(value)
        return torch.cat([p.grad.reshape(-1) for p in self._trained.values() if p.grad is not None])

    def _backward(
        self,
        batch: dict[str, NDArray[Any]],
        seed: int,
        weights: NDArray[np.float32] | None,
        noise: NDArray[np.float32] | None,
    ) -> float:
        """Leaves the gradient of the weighted mean loss in the parameters, and gives that loss."""
        ones = np.ones(len(next(iter(batch.values()))), np.float32)
        rows = {**batch, WEIGHTS: ones if weights is None else weights}
        if self._task.privacy is not None:
            rows = filled(rows, self._task.batch_size)  # the masks of dropout depend on the size
        inputs, targets = self._tensors(rows)
        shares = torch.from_numpy(rows[WEIGHTS]).to(self._dtype)
        self._prepared.set_training(self._module)
        self._optimizer.zero_grad()
        randomness = SeededRandomness(torch.tensor(seed))
        with randomness:
            if self._task.privacy is None:
                losses = per_example("loss", self._loss, self._module(*inputs), targets)
            else:
                losses = self._private_backward(self._task.privacy.norm, inputs, targets, shares, noise)
        if self._task.privacy is None:
            # A recurrent layer's backward pass takes a third of the time outside.
            with randomness if randomness.has_scaled_masks else contextlib.nullcontext():
                (losses @ shares / shares.sum()).backward()  # type: ignore[no-untyped-call]
        return float(losses.detach() @ shares / shares.sum())

    def _descend(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        chosen = self._task.optimizer
        if chosen.name == "sgd" and chosen.decoupled:
            with torch.no_grad():
                for parameter in self._decaying:
                    parameter.mul_(1 - learning_rate * chosen.weight_decay)
        self._optimizer.step()

    def _private_backward(
        self,
        norm: float,
        inputs: list[Tensor],
        targets: list[Tensor],
        shares: Tensor,
        noise: NDArray[np.float32] | None,
    ) -> Tensor:
        """Leaves DP-SGD's gradient in the parameters, and gives the losses."""
        others = {
            name: tensor.detach() for name, tensor in tensors_of(self._module).items() if name not in self._trained
        }

        def of_one(trained: dict[str, Tensor], inputs: list[Tensor], targets: list[Tensor]) -> Tensor:
            output = functional_call(self._module, {**others, **trained}, tuple(t.unsqueeze(0) for t in inputs))
            return per_example("loss", self._loss, output, [t.unsqueeze(0) for t in targets]).squeeze(0)

        losses: Tensor
        trained = {name: parameter.detach() for name, parameter in self._trained.items()}
        each = vmap(grad_and_value(of_one), (None, 0, 0), randomness="different")
        gradients, losses = each(trained, inputs, targets)
        lengths = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        shares = shares * (norm / (lengths + 1e-6)).clamp(max=1.0)
        start = 0
        for name, parameter in self._trained.items():
            total = torch.tensordot(shares, gradients[name], 1)
            if noise is not None:
                total += torch.from_numpy(noise[start : start + total.numel()]).to(self._dtype).reshape(total.shape)
            start += total.numel()
            parameter.grad = total / self._task.batch_size
        return losses

    def _tensors(self, batch: dict[str, NDArray[Any]]) -> tuple[list[Tensor], list[Tensor]]:
        inputs, targets = self._arrays.tensors(batch)
        return [self._cast(tensor) for tensor in inputs], [self._cast(tensor) for tensor in targets]

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that the author's forward pass makes are of `dtype` too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def torch_optimizer(chosen: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Torch's own, for parameter groups; all but the decay of decoupled SGD, which torch does not have."""
    if chosen.name == "sgd":
        decay = 0.0 if chosen.decoupled else chosen.weight_decay
        groups = [{"weight_decay": decay, **group} for group in groups]
        return torch.optim.SGD(groups, momentum=chosen.momentum, nesterov=chosen.nesterov, foreach=False)
    kind = torch.optim.AdamW if chosen.decoupled else torch.optim.Adam
    betas = (chosen.beta1, chosen.beta2)
    return kind(groups, betas=betas, eps=chosen.epsilon, weight_decay=chosen.weight_decay, foreach=False)
