"""The backward pass of pooling and upsampling.

Maxima are found again by comparison: ONNX Runtime takes five times as long when it must give their indices too.
"""

# ruff: noqa: ARG001, FBT001, PLR0913, PLR0917 -- the signatures are the operators'

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes as disabled_modes

from fieldfold.task.compile.convolution import Window, pad
from fieldfold.task.compile.unsupported import UnsupportedError

aten = torch.ops.aten


def max_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """`aten.max_pool2d_with_indices_backward`: of equal maxima the first gets the gradient, as in torch."""
    dims = 2
    sizes = [list(values) * dims if len(values) == 1 else list(values) for values in (kernel_size, padding, dilation)]
    window = Window.of(sizes[0], stride, sizes[1], sizes[2])
    largest = aten.max_pool2d_with_indices(x, *window, ceil_mode)[0]
    # the batch dimension may be missing, and pooling of one dimension comes as two, the first of size 1
    flat = x.reshape(1, -1, *x.shape[-dims:])
    largest, gradient = (tensor.reshape(1, -1, *tensor.shape[-dims:]) for tensor in (largest, gradient))
    size, out = list(x.shape[-dims:]), list(gradient.shape[-dims:])
    uncovered = window.uncovered(size, out)
    after = [max(-u, 0) + p for u, p in zip(uncovered, window.padding, strict=True)]
    views = window.views(pad(flat, window.padding, after, -math.inf), out)
    shares = _first_of_the_largest(views, largest, gradient)
    padded = [s + b + a for s, b, a in zip(size, window.padding, after, strict=True)]
    return _put_back(shares, window, padded)[
        :, :, window.padding[0] : window.padding[0] + size[0], window.padding[1] : window.padding[1] + size[1]
    ].reshape(x.shape)


def _first_of_the_largest(views: Sequence[Tensor], largest: Tensor, gradient: Tensor) -> list[Tensor]:
    shares = []
    rest = gradient
    for view in views[:-1]:
        share = rest * (view == largest).to(gradient.dtype)
        shares.append(share)
        rest = rest - share
    # what no other has belongs to the last
    return [*shares, rest]


def _put_back(parts: Sequence[Tensor], window: Window, size: Sequence[int]) -> Tensor:
    """The transpose of `Window.views`: every part `(1, C, *out)` added at its places of `(1, C, *size)`.

    Parts whose places leave the same remainder by the stride are added, shifted against each other, and the sums are
    put side by side; a `col2im` would cost ten times as much.
    """
    lengths = [-(-whole // step) for whole, step in zip(size, window.stride, strict=True)]
    sums: dict[tuple[int, ...], Tensor] = {}
    for part, position in zip(parts, itertools.product(*map(range, window.kernel)), strict=True):
        starts = [place * apart for place, apart in zip(position, window.dilation, strict=True)]
        remainder = tuple(start % step for start, step in zip(starts, window.stride, strict=True))
        before = [start // step for start, step in zip(starts, window.stride, strict=True)]
        after = [whole - b - out for whole, b, out in zip(lengths, before, part.shape[2:], strict=True)]
        moved = pad(part, before, after)
        sums[remainder] = sums[remainder] + moved if remainder in sums else moved
    nothing = torch.zeros_like(next(iter(sums.values())))
    places = itertools.product(*map(range, window.stride))
    total = side_by_side([sums.get(place, nothing) for place in places], window.stride)
    return pad(total, [0, 0], [whole - found for whole, found in zip(size, total.shape[2:], strict=True)])


def _tiles(window: Window) -> bool:
    """Whether every place belongs to one window."""
    return list(window.kernel) == list(window.stride) and max(window.dilation) == 1


def side_by_side(parts: Sequence[Tensor], kernel: Sequence[int]) -> Tensor:
    """Tensors `(..., h, w)`, one a position of a kernel, interleaved: `(..., h * kernel[0], w * kernel[1])`."""
    (rows, columns), (height, width) = kernel, parts[0].shape[-2:]
    lead = parts[0].shape[:-2]
    lines = []
    for row in range(rows):
        line = parts[row * columns : (row + 1) * columns]
        lines.append(line[0] if columns == 1 else torch.stack(list(line), -1).reshape(*lead, height, width * columns))
    return lines[0] if rows == 1 else torch.stack(lines, -2).reshape(*lead, height * rows, width * columns)


def avg_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """`aten.avg_pool2d_backward`."""
    kernel = list(kernel_size) * 2 if len(kernel_size) == 1 else list(kernel_size)
    window = Window.of(kernel, stride, padding, [1])
    size, out = list(x.shape[-2:]), list(gradient.shape[-2:])
    divisor = divisor_override or math.prod(kernel)
    if _tiles(window) and not any(window.padding) and not any(window.uncovered(size, out)):
        return side_by_side([gradient * (1.0 / divisor)] * math.prod(kernel), kernel)

    def pooled(dim: int) -> Callable[[Tensor], Tensor]:
        def pool(line: Tensor) -> Tensor:
            found: Tensor = aten.avg_pool2d(
                line.unsqueeze(1),
                [1, kernel[dim]],
                [1, window.stride[dim]],
                [0, window.padding[dim]],
                ceil_mode,
                count_include_pad,
                1 if divisor_override else None,
            )
            return found.squeeze(1)

        return pool

    spread = along_each(gradient, [matrix_of(pooled(dim), size[dim], backward=True) for dim in range(2)])
    return spread * (1.0 / divisor) if divisor_override else spread


def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """`aten._adaptive_avg_pool2d`."""
    return along_each(x, _averages(list(x.shape[-2:]), output_size, backward=False))


def adaptive_avg_pool_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """`aten._adaptive_avg_pool2d_backward`."""
    return along_each(gradient, _averages(list(x.shape[-2:]), list(gradient.shape[-2:]), backward=True))


def _averages(size: Sequence[int], out: Sequence[int], *, backward: bool) -> list[Tensor | None]:
    return [
        matrix_of(functools.partial(functional.adaptive_avg_pool1d, output_size=o), s, backward=backward)
        for s, o in zip(size, out, strict=True)
    ]


def adaptive_max_pool(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`aten.adaptive_max_pool2d`, where the windows are all of one size."""
    kernel = _even_windows(x, output_size)
    found: tuple[Tensor, Tensor] = aten.max_pool2d_with_indices(x, kernel, kernel, [0, 0], [1, 1])
    return found


def adaptive_max_pool_backward(gradient: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """`aten.adaptive_max_pool2d_backward`."""
    kernel = _even_windows(x, gradient.shape[-2:])
    return max_pool_backward(gradient, x, kernel, kernel, [0], [1], False, indices)


def _even_windows(x: Tensor, output_size: Sequence[int]) -> list[int]:
    size = list(x.shape[-2:])
    if any(s % o for s, o in zip(size, output_size, strict=True)):
        raise UnsupportedError(
            f"adaptive max pooling of {size} to {list(output_size)}",
            "pool to a size that divides the input's, or by averages",
        )
    return [s // o for s, o in zip(size, output_size, strict=True)]


def matrix_of(operation: Callable[[Tensor], Tensor], size: int, *, backward: bool = False) -> Tensor | None:
    """What a linear operation on `(rows, 1, size)` does, as a constant `(size, out)`, or the transpose of that.

    float32; None where nothing changes.
    """
    with disabled_modes():
        units = torch.eye(size, dtype=torch.float64)
        matrix = operation(units.unsqueeze(1)).squeeze(1)
        if matrix.shape == units.shape and bool((matrix == units).all()):
            return None
        return (matrix.t() if backward else matrix).to(torch.float32).contiguous()


def along_each(x: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Multiplies each of the last dimensions by its matrix."""
    for place, matrix in enumerate(reversed(matrices)):
        if matrix is not None:
            x = x @ matrix if place == 0 else (x.transpose(-1, -1 - place) @ matrix).transpose(-1, -1 - place)
    return x
