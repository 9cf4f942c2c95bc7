"""Operators of our own for what ONNX has in one node and aten has not; no kernels, only shapes and translations.

They stand in a graph between tracing and export, and never in a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset21 as op
from torch import Tensor

from fieldfold.task.compile import recurrent_onnx

aten = torch.ops.aten

_LIBRARY = torch.library.Library("fieldfold", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "batch_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define("space_to_depth(Tensor x, int block) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.define("affine(Tensor x, Tensor scale, Tensor shift) -> Tensor")  # type: ignore[no-untyped-call]


def _batch_norm_shapes(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001
    return x.new_empty(x.shape), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _affine_shapes(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape)


def _space_to_depth_shape(x: Tensor, block: int) -> Tensor:
    examples, channels, *sizes = x.shape
    return x.new_empty([examples, channels * block**2, *(size // block for size in sizes)])


torch.library.register_fake("fieldfold::space_to_depth", _space_to_depth_shape, lib=_LIBRARY)
torch.library.register_fake("fieldfold::batch_norm", _batch_norm_shapes, lib=_LIBRARY)
torch.library.register_fake("fieldfold::affine", _affine_shapes, lib=_LIBRARY)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=values)


def _batch_norm_onnx(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """With a momentum of 0 the running statistics that come out are those of the batch, whatever numbers go in.

    ONNX Runtime writes them into the memory of what goes in: here some of x, of which `lean.py` makes copies.
    """
    some = op.Slice(op.Reshape(x, _ints(-1)), _ints(0), _ints(weight.shape[0]))
    normal, mean, variance = op.BatchNormalization(
        x, weight, bias, some, some, epsilon=eps, momentum=0.0, training_mode=1
    )
    return normal, mean, variance


def _affine_onnx(x: Any, scale: Any, shift: Any) -> Any:
    """A scale and a shift for each channel: one pass, where Mul and Add are two slower ones."""
    channels = scale.shape[0]
    nothing, one = op.Constant(value_floats=[0.0] * channels), op.Constant(value_floats=[1.0] * channels)
    return op.BatchNormalization(x, scale, shift, nothing, one, epsilon=0.0)


def _space_to_depth_onnx(x: Any, block: int) -> Any:
    """The block's places become channels, the first place's before the next one's."""
    return op.SpaceToDepth(x, blocksize=block)


def translations() -> dict[Any, Callable[..., Any]]:
    """Operator -> the function that writes it as ONNX."""
    return {
        torch.ops.fieldfold.batch_norm.default: _batch_norm_onnx,
        torch.ops.fieldfold.affine.default: _affine_onnx,
        torch.ops.fieldfold.space_to_depth.default: _space_to_depth_onnx,
        **recurrent_onnx.TRANSLATIONS,
    }


def onnx_rules() -> dict[Any, Callable[..., Any]]:
    """Decompositions into the operators above; they go before those of `decomposition_table`."""
    return {
        aten._native_batch_norm_legit.default: _batch_norm,  # noqa: SLF001 -- the operator's name
        aten._native_batch_norm_legit.no_stats: _batch_norm_without_statistics,  # noqa: SLF001 -- the operator's name
    }


def _batch_norm(  # noqa: PLR0913, PLR0917 -- torch's signature
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,  # noqa: FBT001 -- torch's signature
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    weight = x.new_ones(channels) if weight is None else weight
    bias = x.new_zeros(channels) if bias is None else bias
    if not training:
        found: tuple[Tensor, Tensor, Tensor] = aten._native_batch_norm_legit_no_training(  # noqa: SLF001
            x, weight, bias, running_mean, running_var, momentum, eps
        )
        return found[0], x.new_empty(0), x.new_empty(0)
    normal, mean, variance = torch.ops.fieldfold.batch_norm(x, weight, bias, eps)
    if running_mean is not None:
        running_mean.copy_(running_mean * (1 - momentum) + mean * momentum)
    if running_var is not None:
        count = x.shape[0] * math.prod(x.shape[2:])
        running_var.copy_(running_var * (1 - momentum) + variance * (momentum * count / (count - 1)))
    return normal, mean, (variance + eps).rsqrt()


def _batch_norm_without_statistics(  # noqa: PLR0913, PLR0917 -- torch's signature
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,  # noqa: FBT001 -- torch's signature
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _batch_norm(x, weight, bias, None, None, training, momentum, eps)
