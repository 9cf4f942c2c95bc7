"""The backward pass of convolutions, in the forms that ONNX Runtime's CPU kernels run fastest.

Which form is fastest depends on the shapes; the limits below were measured on one x86-64 core.
"""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- the signatures are the operators'

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten

_LONG_KERNEL = 16  # in one dimension: from here on the kernel is better the short side of another convolution


class Window(NamedTuple):
    """How a kernel moves over the larger tensor, a number a dimension."""

    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]

    @classmethod
    def of(
        cls, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
    ) -> Window:
        """With single numbers repeated for every dimension; an empty stride is the kernel's size."""
        dims = len(kernel)
        stride, padding, dilation = (
            list(values) * dims if len(values) == 1 else list(values) for values in (stride, padding, dilation)
        )
        return cls(list(kernel), stride or list(kernel), padding, dilation)

    def uncovered(self, big: Sequence[int], small: Sequence[int]) -> list[int]:
        """How far the last window ends before the end of the padded `big`; negative where it ends behind it."""
        return [
            big[d]
            + 2 * self.padding[d]
            - (small[d] - 1) * self.stride[d]
            - self.dilation[d] * (self.kernel[d] - 1)
            - 1
            for d in range(len(self.kernel))
        ]

    def views(self, padded: Tensor, out: Sequence[int]) -> list[Tensor]:
        """For every kernel position what it meets: `(N, C, *out)` of the padded `(N, C, ...)`."""
        found = []
        for position in itertools.product(*map(range, self.kernel)):
            view = padded
            for dim, offset in enumerate(position):
                start = offset * self.dilation[dim]
                stop = start + (out[dim] - 1) * self.stride[dim] + 1
                view = aten.slice.Tensor(view, dim + 2, start, stop, self.stride[dim])
            found.append(view)
        return found


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Pads the last dimensions; a negative number cuts off."""
    if not any(before) and not any(after):
        return x
    amounts = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    padded: Tensor = aten.constant_pad_nd(x, amounts, value)
    return padded


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],  # noqa: ARG001
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """`aten.convolution_backward`."""
    window = Window.of(weight.shape[2:], stride, padding, dilation)
    x_gradient = weight_gradient = bias_gradient = None
    if mask[0] and transposed:
        x_gradient = aten.convolution(
            gradient, weight, None, window.stride, window.padding, window.dilation, False, [0], groups
        )
    elif mask[0]:
        x_gradient = _input_gradient(gradient, list(x.shape[2:]), weight, window, groups)
    if mask[1]:
        big, small = (gradient, x) if transposed else (x, gradient)
        weight_gradient = _weight_gradient(big, small, weight, window, groups)
    if mask[2]:
        bias_gradient = gradient.sum([0, *range(2, gradient.dim())])
    return x_gradient, weight_gradient, bias_gradient


def _input_gradient(gradient: Tensor, size: Sequence[int], weight: Tensor, window: Window, groups: int) -> Tensor:
    dims = len(size)
    reach = [d * (k - 1) - p for d, k, p in zip(window.dilation, window.kernel, window.padding, strict=True)]
    # in two dimensions the transposed convolution is the faster one
    direct = (groups == 1 and (dims == 1 or math.prod(window.kernel) == 1)) or _depthwise(weight, groups)
    if direct and max(window.stride) == 1 and min(reach) >= 0:
        turned = weight if groups > 1 else weight.transpose(0, 1)
        if math.prod(window.kernel) > 1:
            turned = turned.flip(list(range(2, 2 + dims)))
        return _convolve(gradient, turned, window._replace(padding=reach), groups)
    uncovered = window.uncovered(size, list(gradient.shape[2:]))
    result: Tensor = aten.convolution(
        gradient, weight, None, window.stride, window.padding, window.dilation, True, uncovered, groups
    )
    return result


def _depthwise(weight: Tensor, groups: int) -> bool:
    return groups > 1 and weight.shape[0] == groups and weight.shape[1] == 1


def _convolve(x: Tensor, weight: Tensor, window: Window, groups: int = 1) -> Tensor:
    result: Tensor = aten.convolution(
        x, weight, None, window.stride, window.padding, window.dilation, False, [0], groups
    )
    return result


def _weight_gradient(big: Tensor, small: Tensor, weight: Tensor, window: Window, groups: int) -> Tensor:
    """Correlates the larger of input and output gradient with the smaller."""
    out = list(small.shape[2:])
    if groups == 1 and len(out) == 1 and window.kernel[0] >= _LONG_KERNEL:
        return _as_convolution(big, small, window)
    padded = pad(big, window.padding, window.padding)
    if _depthwise(weight, groups):
        dims = [0, *range(2, small.dim())]
        found = [(view * small).sum(dims) for view in window.views(padded, out)]
        return torch.stack(found, 1).reshape(weight.shape)
    if groups == 1 and math.prod(window.kernel) > 1 and max(window.stride) == 1:
        return _stacked(padded, small, weight, window)
    # bmm, since matmul expands what has its shape already, and no Transpose is then merged into the product
    length, inner = math.prod(out), small.shape[1] // groups
    views = [view.reshape(-1, big.shape[1] // groups, length) for view in _views(window, padded, out)]
    columns = views[0] if len(views) == 1 else torch.cat(views, 1)
    products = torch.bmm(small.reshape(-1, inner, length), columns.transpose(1, 2))
    products = products.reshape(-1, groups, *products.shape[1:]).sum(0)
    places = products.reshape(weight.shape[0], len(views), weight.shape[1])
    return places.transpose(1, 2).reshape(weight.shape)


def _views(window: Window, padded: Tensor, out: Sequence[int]) -> list[Tensor]:
    """`window.views`, of which a stride in two dimensions makes slow ones: so the strides' places become channels."""
    step = window.stride[0]
    if len(out) != 2 or math.prod(window.kernel) == 1 or step == 1 or window.stride[1] != step:
        return window.views(padded, out)
    channels = padded.shape[1]
    filled = pad(padded, [0, 0], [-size % step for size in padded.shape[2:]])
    places = torch.ops.fieldfold.space_to_depth(filled, step)
    found = []
    for position in itertools.product(*map(range, window.kernel)):
        starts = [offset * apart for offset, apart in zip(position, window.dilation, strict=True)]
        first = channels * (starts[0] % step * step + starts[1] % step)
        view = aten.slice.Tensor(places, 1, first, first + channels)
        for dim, start in enumerate(starts):
            view = aten.slice.Tensor(view, dim + 2, start // step, start // step + out[dim])
        found.append(view)
    return found


def _as_convolution(big: Tensor, small: Tensor, window: Window) -> Tensor:
    """Of `big` with `small` as its kernel, examples and channels having changed places."""
    extra = [-uncovered for uncovered in window.uncovered(list(big.shape[2:]), list(small.shape[2:]))]
    padded = pad(big, window.padding, [p + e for p, e in zip(window.padding, extra, strict=True)])
    swapped = Window(list(small.shape[2:]), window.dilation, [0] * len(extra), window.stride)
    return _convolve(padded.transpose(0, 1), small.transpose(0, 1), swapped).transpose(0, 1)


def _stacked(padded: Tensor, small: Tensor, weight: Tensor, window: Window) -> Tensor:
    """One product over examples and places for all kernel positions together.

    With the places in one line, a kernel position is a shift of that line: of `small` in the last dimension, of
    `padded` in the others, and in the only one where it has the fewer channels. Where a shift would run over the end
    of a row, it meets the zeros that fill up `small`.
    """
    sizes, out = list(padded.shape[2:]), list(small.shape[2:])
    filled = pad(small, [0] * len(out), [size - o for size, o in zip(sizes, out, strict=True)])
    steps = [math.prod(sizes[d + 1 :]) * window.dilation[d] for d in range(len(sizes))]
    earlier_dims = len(out) - 1 or int(padded.shape[1] < small.shape[1])
    earlier, later = (
        [
            sum(step * offset for step, offset in zip(steps[dims], position, strict=True))
            for position in itertools.product(*map(range, window.kernel[dims]))
        ]
        for dims in (slice(earlier_dims), slice(earlier_dims, None))
    )
    products = _lines(filled, later) @ _lines(padded, [-shift for shift in earlier]).t()
    shape = [len(later), small.shape[1], len(earlier), padded.shape[1]]
    return products.reshape(shape).permute(1, 3, 2, 0).reshape(weight.shape)


def _lines(x: Tensor, shifts: Sequence[int]) -> Tensor:
    """`(N, C, ...)` as `(shifts x C, places)`, each time moved on by so many places."""
    line = x.transpose(0, 1).reshape(x.shape[1], -1)
    return torch.cat([pad(line, [shift], [-shift]) for shift in shifts])
