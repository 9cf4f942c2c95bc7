"""The backward pass of normalisation, with as few passes over the activations as the formulas allow.

Ioffe and Szegedy, 2015; Ba et al., 2016; Wu and He, 2018.
"""

# ruff: noqa: ARG001, FBT001, PLR0913, PLR0917 -- the signatures are the operators'

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_Three = tuple[Tensor | None, Tensor | None, Tensor | None]


def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    mask: Sequence[bool],
) -> _Three:
    """`aten.native_batch_norm_backward`, for ONNX only."""
    dims = [0, *range(2, x.dim())]
    if train:
        assert save_mean is not None and save_invstd is not None  # noqa: PT018, S101 -- torch saved them
        mean, scale = save_mean, save_invstd
    else:
        assert running_mean is not None and running_var is not None  # noqa: PT018, S101 -- torch has used them
        mean, scale = running_mean, (running_var + eps).rsqrt()
    affine = torch.ops.fieldfold.affine
    normal = affine(x, scale, -mean * scale)
    bias_gradient = gradient.sum(dims)
    weight_gradient = (gradient * normal).sum(dims)
    slope = scale if weight is None else scale * weight
    x_gradient = None
    if mask[0]:
        x_gradient = affine(gradient, slope, torch.zeros_like(slope))
    if mask[0] and train:
        share = slope / -(x.shape[0] * math.prod(x.shape[2:]))
        x_gradient = x_gradient + affine(normal, share * weight_gradient, share * bias_gradient)
    return x_gradient, weight_gradient if mask[1] else None, bias_gradient if mask[2] else None


def layer_norm_backward(
    gradient: Tensor,
    x: Tensor,
    normalized_shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Sequence[bool],
) -> _Three:
    """`aten.native_layer_norm_backward`; mean and rstd are `(..., 1)`."""
    lead = x.dim() - len(normalized_shape)
    inner, outer = list(range(lead, x.dim())), list(range(lead))
    normal = (x - mean) * rstd
    weighted = gradient if weight is None else gradient * weight
    x_gradient = None
    if mask[0]:
        x_gradient = _through(weighted, normal, rstd, inner)
    weight_gradient = (gradient * normal).sum(outer) if mask[1] else None
    return x_gradient, weight_gradient, gradient.sum(outer) if mask[2] else None


def group_norm_backward(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    num_examples: int,
    num_channels: int,
    num_places: int,
    num_groups: int,
    mask: Sequence[bool],
) -> _Three:
    """`aten.native_group_norm_backward`; mean and rstd are `(N, groups)`."""
    grouped = [num_examples, num_groups, num_channels // num_groups, num_places]
    normal = (x.reshape(grouped) - mean[:, :, None, None]) * rstd[:, :, None, None]
    gradient = gradient.reshape(grouped)
    weighted = gradient if weight is None else gradient * weight.reshape(1, num_groups, -1, 1)
    x_gradient = _through(weighted, normal, rstd[:, :, None, None], [2, 3]).reshape(x.shape) if mask[0] else None
    weight_gradient = (gradient * normal).sum([0, 3]).reshape(num_channels) if mask[1] else None
    bias_gradient = gradient.sum([0, 3]).reshape(num_channels) if mask[2] else None
    return x_gradient, weight_gradient, bias_gradient


def _through(gradient: Tensor, normal: Tensor, rstd: Tensor, dims: list[int]) -> Tensor:
    """The gradient of what was normalised over `dims`, from that of the normal values."""
    level = gradient.mean(dims, keepdim=True)
    slope = (gradient * normal).mean(dims, keepdim=True)
    return (gradient - level - normal * slope) * rstd
