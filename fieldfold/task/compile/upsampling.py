"""Upsampling and its backward pass: repetition for whole factors of nearest, else one matrix a dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldfold.task.compile.pooling import along_each, matrix_of, side_by_side

aten = torch.ops.aten

_Rule = Callable[..., Tensor]


def upsampling_rules() -> dict[Any, _Rule]:
    """Operator -> rule, for one and two dimensions and their backward passes."""
    rules: dict[Any, _Rule] = {
        aten.upsample_nearest1d.default: _nearest,
        aten.upsample_nearest2d.default: _nearest,
        aten.upsample_nearest1d_backward.default: _nearest_backward,
        aten.upsample_nearest2d_backward.default: _nearest_backward,
    }
    for forward, backward in (
        (aten.upsample_linear1d, aten.upsample_linear1d_backward),
        (aten.upsample_bilinear2d, aten.upsample_bilinear2d_backward),
    ):
        rules[forward.default] = _linear
        rules[backward.default] = _linear_backward
    return rules


def _nearest(x: Tensor, output_size: Sequence[int], *scales: float | None) -> Tensor:
    size = list(x.shape[2:])
    factors = _whole_factors(size, output_size, scales)
    if factors is None:
        return along_each(x, _nearest_matrices(size, output_size, scales, backward=False))
    if len(factors) == 1:
        return side_by_side([x.unsqueeze(2)] * factors[0], [1, *factors]).squeeze(2)
    return side_by_side([x] * math.prod(factors), factors)


def _nearest_backward(
    gradient: Tensor, output_size: Sequence[int], input_size: Sequence[int], *scales: float | None
) -> Tensor:
    size = list(input_size[2:])
    factors = _whole_factors(size, output_size, scales)
    if factors is None:
        return along_each(gradient, _nearest_matrices(size, output_size, scales, backward=True))
    for place, (factor, whole) in enumerate(zip(reversed(factors), reversed(size), strict=True)):
        dim = gradient.dim() - 1 - place
        shape = [*gradient.shape[:dim], whole, factor, *gradient.shape[dim + 1 :]]
        parts = torch.split(gradient.reshape(shape), 1, dim + 1)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        gradient = total.squeeze(dim + 1)
    return gradient


def _whole_factors(
    size: Sequence[int], output_size: Sequence[int], scales: Sequence[float | None]
) -> list[int] | None:
    """The factor of each dimension, where all are whole numbers (and torch does not round otherwise)."""
    pairs = list(zip(size, output_size, strict=True))
    exact = all(scale is None or scale == o / s for scale, (s, o) in zip(scales, pairs, strict=False))
    return [o // s for s, o in pairs] if exact and not any(o % s for s, o in pairs) else None


def _nearest_matrices(
    size: Sequence[int], output_size: Sequence[int], scales: Sequence[float | None], *, backward: bool
) -> list[Tensor | None]:
    def rule(dim: int) -> Callable[[Tensor], Tensor]:
        return lambda line: aten.upsample_nearest1d(line, [output_size[dim]], scales[dim] if scales else None)

    return [matrix_of(rule(dim), size[dim], backward=backward) for dim in range(len(size))]


def _linear(x: Tensor, output_size: Sequence[int], align_corners: bool, *scales: float | None) -> Tensor:  # noqa: FBT001
    matrices = _linear_matrices(list(x.shape[2:]), output_size, align_corners, scales, backward=False)
    return along_each(x, matrices)


def _linear_backward(
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,  # noqa: FBT001
    *scales: float | None,
) -> Tensor:
    matrices = _linear_matrices(list(input_size[2:]), output_size, align_corners, scales, backward=True)
    return along_each(gradient, matrices)


def _linear_matrices(
    size: Sequence[int],
    output_size: Sequence[int],
    align_corners: bool,  # noqa: FBT001
    scales: Sequence[float | None],
    *,
    backward: bool,
) -> list[Tensor | None]:
    def rule(dim: int) -> Callable[[Tensor], Tensor]:
        scale = scales[dim] if scales else None
        return lambda line: aten.upsample_linear1d(line, [output_size[dim]], align_corners, scale)

    return [matrix_of(rule(dim), size[dim], backward=backward) for dim in range(len(size))]
