"""Backward operators that torch does not break down into what ONNX can express."""

# ruff: noqa: ARG001, FBT001, PLR0913, PLR0917 -- the signatures are the operators'

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from fieldfold.errors import CompileError

aten = torch.ops.aten


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """Torch's core decompositions, those of normalisation, and the ones below."""
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table.update(
        get_decompositions(
            [
                aten.native_batch_norm,
                aten._native_batch_norm_legit,  # noqa: SLF001 -- the operator's name
                aten._native_batch_norm_legit_functional,  # noqa: SLF001 -- the operator's name
                aten.batch_norm_backward,
            ]
        )
    )
    table[aten.convolution_backward.default] = _convolution_backward
    table[aten.max_pool2d_with_indices_backward.default] = _max_pool2d_backward
    table[aten.avg_pool2d_backward.default] = _avg_pool2d_backward
    table[aten.embedding_dense_backward.default] = _embedding_backward
    return table


def _per_dimension(values: Sequence[int], dims: int) -> list[int]:
    return list(values) * dims if len(values) == 1 else list(values)


def _shifted_views(
    padded: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], out: Sequence[int]
) -> Tensor:
    """For every kernel position the inputs it meets: `(N, C, *padded)` -> `(N, C, kernel size, *out)` (im2col)."""
    views = []
    for position in itertools.product(*map(range, kernel)):
        view = padded
        for dim, offset in enumerate(position):
            start = offset * dilation[dim]
            view = aten.slice.Tensor(view, dim + 2, start, start + (out[dim] - 1) * stride[dim] + 1, stride[dim])
        views.append(view)
    return torch.stack(views, 2)


def _weight_gradient(
    big: Tensor,
    small: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Correlates the larger of input and output gradient with the smaller, as one matrix product a group."""
    kernel, out = list(weight.shape[2:]), list(small.shape[2:])
    if any(padding):
        big = aten.constant_pad_nd(big, [p for pad in reversed(padding) for p in (pad, pad)], 0.0)
    batch, length = big.shape[0], math.prod(out)
    columns = _shifted_views(big, kernel, stride, dilation, out)
    columns = columns.reshape(batch, groups, big.shape[1] // groups * math.prod(kernel), length)
    rows = small.reshape(batch, groups, small.shape[1] // groups, length)
    if groups > 1:
        return torch.matmul(rows, columns.transpose(2, 3)).sum(0).reshape(weight.shape)
    # one product over batch and positions together is several times faster than a batch of small ones
    rows = rows.squeeze(1).transpose(0, 1).reshape(small.shape[1], batch * length)
    columns = columns.squeeze(1).transpose(0, 1).reshape(columns.shape[2], batch * length)
    return (rows @ columns.t()).reshape(weight.shape)


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    dims = x.dim() - 2
    stride, padding, dilation = (_per_dimension(values, dims) for values in (stride, padding, dilation))
    x_gradient = weight_gradient = bias_gradient = None
    if mask[0] and transposed:
        x_gradient = aten.convolution(gradient, weight, None, stride, padding, dilation, False, [0] * dims, groups)
    elif mask[0]:
        uncovered = [
            x.shape[2 + d]
            - ((gradient.shape[2 + d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (weight.shape[2 + d] - 1) + 1)
            for d in range(dims)
        ]
        x_gradient = aten.convolution(gradient, weight, None, stride, padding, dilation, True, uncovered, groups)
    if mask[1]:
        big, small = (gradient, x) if transposed else (x, gradient)
        weight_gradient = _weight_gradient(big, small, weight, stride, padding, dilation, groups)
    if mask[2]:
        bias_gradient = gradient.sum([0, *range(2, gradient.dim())])
    return x_gradient, weight_gradient, bias_gradient


def _max_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    # pooling of one dimension arrives here with the batch dimension folded in: the indices say all there is to know
    lead = list(x.shape[:-2])
    flat = torch.zeros_like(x).reshape([*lead, x.shape[-2] * x.shape[-1]])
    size = gradient.shape[-2] * gradient.shape[-1]
    return flat.scatter_add(-1, indices.reshape([*lead, size]), gradient.reshape([*lead, size])).reshape(x.shape)


def _avg_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    if ceil_mode or (any(padding) and not count_include_pad):
        raise CompileError(
            "average pooling with ceil_mode, or with padding that is not counted, cannot be trained",
            "pad the input with torch.nn.functional.pad before pooling",
        )
    kernel = _per_dimension(kernel_size, 2)
    stride = _per_dimension(stride, 2) if stride else kernel
    padding = _per_dimension(padding, 2)
    channels = x.shape[-3]
    weight = gradient.new_full((channels, 1, *kernel), 1.0 / (divisor_override or math.prod(kernel)))
    uncovered = [
        x.shape[-2 + d] - ((gradient.shape[-2 + d] - 1) * stride[d] - 2 * padding[d] + kernel[d]) for d in range(2)
    ]
    spread: Tensor = aten.convolution(gradient, weight, None, stride, padding, [1, 1], True, uncovered, channels)
    return spread


def _embedding_backward(
    gradient: Tensor,
    indices: Tensor,
    num_weights: int,
    padding_idx: int,
    scale_grad_by_freq: bool,
) -> Tensor:
    if scale_grad_by_freq:
        raise CompileError(
            "an embedding with scale_grad_by_freq=True cannot be trained", "leave scale_grad_by_freq at False"
        )
    width = gradient.shape[-1]
    rows, positions = gradient.reshape(-1, width), indices.reshape(-1)
    if padding_idx >= 0:
        rows = rows * (positions != padding_idx).to(rows.dtype).unsqueeze(1)
    return gradient.new_zeros((num_weights, width)).scatter_add(0, positions.unsqueeze(1).expand(-1, width), rows)
