"""What a graph is measured against: the author's module in torch, with torch's own autograd and optimizers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldfold.params import Vector
from fieldfold.task.authoring import Task
from fieldfold.task.compile.model import PreparedModel
from fieldfold.task.compile.randomness import SeededRandomness
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.compile.step import per_example


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
        self._arrays = arrays
        self._dtype = dtype
        self._layout = prepared.layout
        self._module = copy.deepcopy(prepared.module).to(dtype)
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        self._anchors = [parameter.detach().clone() for parameter in self._trained]
        chosen = task.optimizer
        self._decayed = [parameter for parameter in self._trained if parameter.dim() > 1]
        self._optimizer: torch.optim.Optimizer
        if chosen.name == "adam":
            others = [parameter for parameter in self._trained if parameter.dim() <= 1]
            groups: list[dict[str, Any]] = [{"params": self._decayed}, {"params": others, "weight_decay": 0.0}]
            self._optimizer = torch.optim.AdamW(
                groups,
                betas=(chosen.beta1, chosen.beta2),
                eps=chosen.epsilon,
                weight_decay=chosen.weight_decay,
                foreach=False,
            )
        else:
            self._optimizer = torch.optim.SGD(self._trained, momentum=chosen.momentum, foreach=False)

    def step(
        self, batch: dict[str, NDArray[Any]], *, learning_rate: float, seed: int, proximal: float, clip_norm: float
    ) -> float:
        """One optimizer step; the mean loss before it."""
        with _default_dtype(self._dtype):
            inputs, targets = self._tensors(batch)
            self._module.train()
            with SeededRandomness(torch.tensor(seed)):
                loss = per_example("loss", self._task.loss, self._module(*inputs), targets).mean()
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter, anchor in zip(self._trained, self._anchors, strict=True):
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient + proximal * (parameter.detach() - anchor)
            if clip_norm:
                torch.nn.utils.clip_grad_norm_(self._trained, clip_norm, foreach=False)
            self._descend(learning_rate)
            return float(loss.detach())

    def vector(self) -> NDArray[np.float64]:
        """The layout's tensors, flat, float64."""
        present = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        tensors = [present[spec.name].detach().double().reshape(-1) for spec in self._layout.tensors]
        return np.concatenate([tensor.numpy() for tensor in tensors])

    def load(self, vector: Vector) -> None:
        """Takes over the layout's tensors from a flat vector."""
        present = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        with torch.no_grad():
            for name, values in self._layout.unflatten(vector).items():
                present[name].copy_(torch.from_numpy(values))

    def evaluate(self, batch: dict[str, NDArray[Any]]) -> list[float]:
        """Means of loss and metric columns."""
        with _default_dtype(self._dtype), torch.no_grad():
            inputs, targets = self._tensors(batch)
            output = self._module.eval()(*inputs)
            functions = [self._task.loss, *(measure.values for measure in self.metrics)]
            return [float(per_example("loss or metric", f, output, targets).mean()) for f in functions]

    def predict(self, batch: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The model's output."""
        with _default_dtype(self._dtype), torch.no_grad():
            output: Tensor = self._module.eval()(*self._tensors(batch)[0])
            return output.numpy().astype(np.float64)

    def _descend(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._task.optimizer.name == "sgd":  # torch's SGD adds the decay to the gradient instead
            with torch.no_grad():
                for parameter in self._decayed:
                    parameter.mul_(1 - learning_rate * self._task.optimizer.weight_decay)
        self._optimizer.step()

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
