"""What of a module is shared, local, frozen, and what is baked into the graphs."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
        layout: the shared tensors, which travel: trained parameters, then floating-point buffers of the state dict.
        local: the same of what each gateway keeps to itself.
        frozen: tensors that no step changes: parameters with `requires_grad=False`, and what the task freezes.
        constants: buffers that are baked into the graphs: integer ones (BatchNorm's `num_batches_tracked`) and
            non-persistent ones.
        resting: names of submodules that hold nothing but frozen tensors, and run as in evaluation.
    """

    module: nn.Module
    layout: Layout
    local: Layout
    frozen: Layout
    constants: dict[str, Tensor]
    resting: tuple[str, ...]

    @property
    def trained(self) -> tuple[TensorSpec, ...]:
        """The parameters that the optimizer changes, shared and then local."""
        return self._of_kind("parameter")

    @property
    def buffers(self) -> tuple[TensorSpec, ...]:
        """The buffers that follow the data, shared and then local."""
        return self._of_kind("buffer")

    def first_values(self) -> NDArray[np.float32]:
        """The section `parameters`: shared, local and frozen values, flat."""
        present = tensors_of(self.module)
        values = {name: tensor.detach().numpy() for name, tensor in present.items()}
        return np.concatenate([layout.flatten(values) for layout in (self.layout, self.local, self.frozen)])

    def set_training(self, module: nn.Module) -> None:
        """Puts this module, or a copy of it, into training mode, all but what rests."""
        module.train()
        for name in self.resting:
            module.get_submodule(name).eval()

    def _of_kind(self, kind: str) -> tuple[TensorSpec, ...]:
        return tuple(spec for layout in (self.layout, self.local) for spec in layout.tensors if spec.kind == kind)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def prepare_model(task: Task) -> PreparedModel:
    """Makes the module, seeded, and sorts its tensors.

    Raises:
        CompileError: when nothing can be trained or shared, a pattern of the task fits no tensor or two of them
            contradict each other, or a tensor is empty, complex or lazily shaped.
    """
    torch.manual_seed(task.seed)
    made = task.model if isinstance(task.model, nn.Module) else task.model()
    if not isinstance(made, nn.Module):
        raise CompileError(
            f"task {task.name}: model gives a {type(made).__name__}", "give an nn.Module, or what makes one"
        )
    module = copy.deepcopy(made).float()
    buffers = dict(module.named_buffers())
    persistent = module.state_dict().keys()
    constants = {
        n: t.detach().clone() for n, t in buffers.items() if n not in persistent or not t.is_floating_point()
    }
    tensors = {name: tensor for name, tensor in tensors_of(module).items() if name not in constants}
    for name, tensor in tensors.items():
        _check_tensor(task.name, name, tensor)
    frozen, local = _matching(task, "frozen", module, tensors), _matching(task, "local", module, tensors)
    if both := sorted(frozen & local):
        raise CompileError(f"task {task.name}: {both[0]} is both local and frozen", "name it in one list only")
    for name in frozen - buffers.keys():
        tensors[name].requires_grad = False
    frozen |= {name for name, tensor in tensors.items() if name not in buffers and not tensor.requires_grad}
    shared = _layout(tensors, tensors.keys() - frozen - local, buffers)
    own = _layout(tensors, local - frozen, buffers)
    _check_trained(task, shared, own)
    still = _layout(tensors, frozen, buffers)
    prepared = PreparedModel(module, shared, own, still, constants, _resting(module, tensors, frozen))
    if task.privacy is not None:
        _check_examples_apart(task, prepared)
    return prepared


def _layout(tensors: dict[str, Tensor], names: Collection[str], buffers: Collection[str]) -> Layout:
    """Those of the tensors, in the model's order, parameters first."""
    chosen = [(name, tuple(tensor.shape)) for name, tensor in tensors.items() if name in names]
    parameters = [TensorSpec(name, shape) for name, shape in chosen if name not in buffers]
    return Layout((*parameters, *(TensorSpec(name, shape, "buffer") for name, shape in chosen if name in buffers)))


def _matching(task: Task, field: str, module: nn.Module, tensors: dict[str, Tensor]) -> set[str]:
    """The tensors whose name, or another name of theirs where weights are tied, fits one of a field's patterns."""
    primary = {id(tensor): name for name, tensor in tensors.items()}
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    aliases = [(name, primary[id(tensor)]) for name, tensor in named if id(tensor) in primary]
    found: set[str] = set()
    for pattern in getattr(task, field):
        fitting = {name for alias, name in aliases if fnmatchcase(alias, pattern)}
        if not fitting:
            raise CompileError(
                f"task {task.name}: {field} names {pattern!r}, which fits no tensor of the model"[:300],
                f"`*` stands for anything; the model has {', '.join(alias for alias, _ in aliases)}"[:600],
            )
        found |= fitting
    return found


def _resting(module: nn.Module, tensors: Collection[str], frozen: set[str]) -> tuple[str, ...]:
    """Submodules all of whose tensors are frozen; a dropout between frozen layers rests with them."""

    def rests(name: str) -> bool:
        inside = [tensor for tensor in tensors if tensor.startswith(f"{name}.")]
        return bool(inside) and frozen.issuperset(inside)

    return tuple(name for name, _ in module.named_modules() if name and rests(name))


def _check_trained(task: Task, shared: Layout, local: Layout) -> None:
    if not shared.num_trained and not local.num_trained:
        raise CompileError(
            f"task {task.name}: the model has no trainable parameter", "let one have requires_grad=True"
        )
    if not shared.num_trained:
        raise CompileError(
            f"task {task.name}: every trained parameter is local", "let the gateways share at least one"
        )


def _check_examples_apart(task: Task, prepared: PreparedModel) -> None:
    mixing = [
        name
        for name, module in prepared.module.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name not in prepared.resting  # noqa: SLF001
    ]
    moving = mixing or [spec.name for spec in prepared.buffers]
    if moving:
        raise CompileError(
            f"task {task.name}: {moving[0]} mixes the examples of a batch, so no gradient is one example's alone",
            "use GroupNorm or LayerNorm in place of BatchNorm, freeze it, or leave out privacy",
        )


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
