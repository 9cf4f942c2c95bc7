"""What torch's operators are broken down into, where torch has no rule or a slow one for ONNX Runtime."""

# ruff: noqa: ARG001, FBT001, PLR0913, PLR0917 -- the signatures are the operators'

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from fieldfold.task.compile import normalisation, pooling
from fieldfold.task.compile.convolution import convolution_backward
from fieldfold.task.compile.unsupported import UnsupportedError
from fieldfold.task.compile.upsampling import upsampling_rules

aten = torch.ops.aten


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Torch's core decompositions, those of normalisation, and the rules of this room."""
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table.update(
        get_decompositions(
            [
                aten.native_batch_norm,
                aten._native_batch_norm_legit,  # noqa: SLF001 -- the operator's name
                aten._native_batch_norm_legit_functional,  # noqa: SLF001 -- the operator's name
            ]
        )
    )
    table.update(upsampling_rules())
    table.update(
        {
            aten.convolution_backward.default: convolution_backward,
            aten.native_batch_norm_backward.default: normalisation.batch_norm_backward,
            aten.native_layer_norm_backward.default: normalisation.layer_norm_backward,
            aten.native_group_norm_backward.default: normalisation.group_norm_backward,
            aten.max_pool2d_with_indices_backward.default: pooling.max_pool_backward,
            aten.avg_pool2d_backward.default: pooling.avg_pool_backward,
            aten._adaptive_avg_pool2d.default: pooling.adaptive_avg_pool,  # noqa: SLF001
            aten._adaptive_avg_pool2d_backward.default: pooling.adaptive_avg_pool_backward,  # noqa: SLF001
            aten.adaptive_max_pool2d.default: pooling.adaptive_max_pool,
            aten.adaptive_max_pool2d_backward.default: pooling.adaptive_max_pool_backward,
            aten.as_strided_.default: _as_strided,
            aten.fractional_max_pool2d.default: _fractional_max_pool,
            aten.fractional_max_pool3d.default: _fractional_max_pool,
            aten.embedding_dense_backward.default: _embedding_backward,
            aten.select_backward.default: _select_backward,
            aten.slice_backward.default: _slice_backward,
            aten.unfold_backward.default: _unfold_backward,
            aten.threshold_backward.default: _threshold_backward,
            aten.hardtanh_backward.default: _hardtanh_backward,
            aten.hardsigmoid_backward.default: _hardsigmoid_backward,
            aten.hardswish_backward.default: _hardswish_backward,
            aten.leaky_relu_backward.default: _leaky_relu_backward,
            aten._weight_norm_interface.default: _weight_norm,  # noqa: SLF001
            aten._weight_norm_interface_backward.default: _weight_norm_backward,  # noqa: SLF001
        }
    )
    return table


def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """Adaptive pooling of a channels-last picture says how its result lies in memory; ONNX has no word for that."""
    if list(size) != list(x.shape):
        raise UnsupportedError("as_strided, which reads memory as another shape,", "use slices, unfold or reshape")
    return x


def _fractional_max_pool(*_: Any) -> Any:
    raise UnsupportedError("fractional max pooling", "use ordinary pooling and upsampling")


def _embedding_backward(
    gradient: Tensor, indices: Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor:
    if scale_grad_by_freq:
        raise UnsupportedError("an embedding with scale_grad_by_freq=True", "leave scale_grad_by_freq at False")
    width = gradient.shape[-1]
    rows, positions = gradient.reshape(-1, width), indices.reshape(-1)
    if padding_idx >= 0:
        rows = rows * (positions != padding_idx).to(rows.dtype).unsqueeze(1)
    empty = gradient.new_zeros((num_weights, width))
    found: Tensor = aten.index_put(empty, [positions], rows, True)
    return found


def _select_backward(gradient: Tensor, input_sizes: Sequence[int], dim: int, index: int) -> Tensor:
    dim, size = dim % len(input_sizes), input_sizes[dim]
    index = index + size if index < 0 else index
    return _placed(gradient.unsqueeze(dim), dim, index, size - index - 1)


def _slice_backward(
    gradient: Tensor, input_sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Tensor:
    dim, size = dim % len(input_sizes), input_sizes[dim]
    start = max(start + size, 0) if start < 0 else min(start, size)
    if step > 1 and gradient.shape[dim] > 0:
        # each element and the step - 1 zeros behind it
        shape = list(gradient.shape)
        spread = _placed(gradient.unsqueeze(dim + 1), dim + 1, 0, step - 1)
        shape[dim] *= step
        gradient = spread.reshape(shape)
    behind = size - start - gradient.shape[dim]
    return _placed(gradient, dim, start, behind)


def _unfold_backward(gradient: Tensor, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Tensor:
    dim = dim % len(input_sizes)
    parts = [
        _slice_backward(part, input_sizes, dim, place, input_sizes[dim], step)
        for place, part in enumerate(torch.unbind(gradient, -1))
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _placed(x: Tensor, dim: int, before: int, behind: int) -> Tensor:
    """Zeros before and behind along one dimension; negative numbers cut off."""
    found: Tensor = aten.constant_pad_nd(x, [0] * (2 * (x.dim() - 1 - dim)) + [before, behind], 0.0)
    return found


# ONNX Runtime's Where takes ten times as long as a product with a mask


def _threshold_backward(gradient: Tensor, x: Tensor, threshold: float) -> Tensor:
    return gradient * (x > threshold).to(gradient.dtype)


def _hardtanh_backward(gradient: Tensor, x: Tensor, min_val: float, max_val: float) -> Tensor:
    return gradient * ((x > min_val) & (x < max_val)).to(gradient.dtype)


def _hardsigmoid_backward(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * ((x > -3) & (x < 3)).to(gradient.dtype) * (1.0 / 6.0)


def _hardswish_backward(gradient: Tensor, x: Tensor) -> Tensor:
    beyond = (x > 3).to(gradient.dtype)
    within = (x >= -3).to(gradient.dtype) - beyond
    return gradient * (within * (x * (1.0 / 3.0) + 0.5) + beyond)


def _leaky_relu_backward(gradient: Tensor, x: Tensor, negative_slope: float, self_is_result: bool) -> Tensor:
    return gradient * ((x > 0).to(gradient.dtype) * (1.0 - negative_slope) + negative_slope)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Salimans and Kingma, 2016: `v` scaled to the length `g`, one for each index of `dim`."""
    dims = [d for d in range(v.dim()) if d != dim % v.dim()]
    norm = (v * v).sum(dims, keepdim=True).sqrt()
    return v * (g / norm), norm


def _weight_norm_backward(gradient: Tensor, v: Tensor, g: Tensor, norm: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    dims = [d for d in range(v.dim()) if d != dim % v.dim()]
    along = (gradient * v).sum(dims, keepdim=True) / norm
    return (gradient - v * (along / norm)) * (g / norm), along
