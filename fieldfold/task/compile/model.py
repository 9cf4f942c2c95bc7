"""What of a module travels, what is trained, and what is baked into the graphs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldfold.errors import CompileError
from fieldfold.params import Layout, TensorSpec
from fieldfold.task.authoring import Task


@dataclass(frozen=True)
class PreparedModel:
    """A float32 module in which every floating-point tensor has its place.

    Attributes:
        module: a copy of the author's.
        layout: trained parameters, then everything else that travels: floating-point buffers of the state dict,
            and frozen parameters (`requires_grad=False`), which no step changes and whose deltas are therefore zero.
        frozen: names of the frozen parameters.
        constants: buffers that stay as they are and do not travel: integer ones (BatchNorm's `num_batches_tracked`)
            and non-persistent ones.
    """

    module: nn.Module
    layout: Layout
    frozen: frozenset[str]
    constants: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """The layout's tensors, detached, in its order."""
        return {name: tensor.detach() for name, tensor in _layout_tensors(self.module, self.layout)}

    def vector(self) -> NDArray[np.float32]:
        """The first parameters, flat, float32."""
        return self.layout.flatten({name: tensor.numpy() for name, tensor in self.tensors().items()})


def prepare_model(task: Task) -> PreparedModel:
    """Makes the module, seeded, and sorts its tensors.

    Raises:
        CompileError: when nothing can be trained, or a tensor is empty, complex or lazily shaped.
    """
    torch.manual_seed(task.seed)
    made = task.model if isinstance(task.model, nn.Module) else task.model()
    if not isinstance(made, nn.Module):
        raise CompileError(
            f"task {task.name}: model gives a {type(made).__name__}", "give an nn.Module, or what makes one"
        )
    module = copy.deepcopy(made).float()
    trained: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    constants: dict[str, Tensor] = {}
    frozen: set[str] = set()
    for name, parameter in module.named_parameters():
        _check_tensor(task.name, name, parameter)
        (trained if parameter.requires_grad else rest).append((name, parameter))
        if not parameter.requires_grad:
            frozen.add(name)
    persistent = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name in persistent and buffer.is_floating_point():
            _check_tensor(task.name, name, buffer)
            rest.append((name, buffer))
        else:
            constants[name] = buffer.detach().clone()
    if not trained:
        raise CompileError(
            f"task {task.name}: the model has no trainable parameter", "let one have requires_grad=True"
        )
    layout = Layout(
        (
            *(TensorSpec(name, tuple(tensor.shape)) for name, tensor in trained),
            *(TensorSpec(name, tuple(tensor.shape), "buffer") for name, tensor in rest),
        )
    )
    return PreparedModel(module, layout, frozenset(frozen), constants)


def _layout_tensors(module: nn.Module, layout: Layout) -> list[tuple[str, Tensor]]:
    present = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return [(spec.name, present[spec.name]) for spec in layout.tensors]


def _check_tensor(task_name: str, name: str, tensor: Tensor) -> None:
    if torch.nn.parameter.is_lazy(tensor):
        raise CompileError(f"task {task_name}: {name} has no shape yet", "give lazy layers their input size")
    if not tensor.is_floating_point() or tensor.numel() == 0:
        raise CompileError(
            f"task {task_name}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}",
            "parameters must be floating-point and hold at least one element",
        )
    if not bool(torch.isfinite(tensor).all()):
        raise CompileError(f"task {task_name}: {name} is not finite", "start from finite parameters")
