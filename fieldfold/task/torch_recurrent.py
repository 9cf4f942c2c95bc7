"""The recurrences of a program for torch: one operator for all steps of a layer in one direction.

In ONNX each is a Scan; here it is a loop over the first dimension, which is as long as the data. `backwards` goes
from the last step to the first; a backward operator goes against its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_Results = tuple[Tensor, ...]


def _along(length: int, *, backwards: bool) -> range:
    return range(length - 1, -1, -1) if backwards else range(length)


def _stacked(rows: Sequence[_Results], *, backwards: bool) -> _Results:
    """What the steps gave, in the order of time."""
    ordered = rows[::-1] if backwards else rows
    return tuple(torch.stack(column) for column in zip(*ordered, strict=True))


def _lstm(steps: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, backwards: bool) -> _Results:  # noqa: FBT001
    size, rows = hidden.shape[-1], []
    for t in _along(len(steps), backwards=backwards):
        gates = torch.addmm(steps[t], hidden, weight)
        i, f, o = torch.split(torch.sigmoid(gates[:, : 3 * size]), size, 1)
        candidate = torch.tanh(gates[:, 3 * size :])
        kept = f * cell
        cell = torch.addcmul(kept, i, candidate)
        squashed = torch.tanh(cell)
        hidden = o * squashed
        rows.append((i, f, o, candidate, kept, squashed))
    return hidden, cell, *_stacked(rows, backwards=backwards)


def _lstm_backward(  # noqa: PLR0913, PLR0917 -- the operator's arguments
    of_earlier: Tensor,
    of_hidden: Tensor,
    of_cell: Tensor,
    through: Tensor,
    of_gates: Tensor,
    f: Tensor,
    weight: Tensor,
    backwards: bool,  # noqa: FBT001
) -> _Results:
    rows = []
    for t in _along(len(of_earlier), backwards=not backwards):
        cell = torch.addcmul(of_cell, of_hidden, through[t])
        gates = torch.cat([cell, cell, of_hidden, cell], 1) * of_gates[t]
        of_hidden, of_cell = torch.addmm(of_earlier[t], gates, weight), cell * f[t]
        rows.append((gates,))
    return of_hidden, of_cell, *_stacked(rows, backwards=not backwards)


def _gru(steps: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, backwards: bool) -> _Results:  # noqa: FBT001
    size, rows = hidden.shape[-1], []
    for t in _along(len(steps), backwards=backwards):
        gates = torch.addmm(bias, hidden, weight)
        recalled = gates[:, 2 * size :]
        sigmoids = torch.sigmoid(steps[t, :, : 2 * size] + gates[:, : 2 * size])
        candidate = torch.tanh(torch.addcmul(steps[t, :, 2 * size :], sigmoids[:, :size], recalled))
        moved = hidden - candidate
        hidden = torch.addcmul(candidate, sigmoids[:, size:], moved)
        rows.append((sigmoids, candidate, recalled, moved))
    return hidden, *_stacked(rows, backwards=backwards)


def _gru_backward(  # noqa: PLR0913, PLR0917 -- the operator's arguments
    of_y: Tensor,
    of_last: Tensor,
    of_gates: Tensor,
    z: Tensor,
    weight: Tensor,
    backwards: bool,  # noqa: FBT001
) -> _Results:
    rows = []
    for t in _along(len(of_y), backwards=not backwards):
        hidden = of_last + of_y[t]
        gates = torch.cat([hidden, hidden, hidden], 1) * of_gates[t]
        of_last = torch.addmm(hidden * z[t], gates, weight)
        rows.append((gates, hidden))
    return of_last, *_stacked(rows, backwards=not backwards)


def _plain(steps: Tensor, hidden: Tensor, weight: Tensor, activation: str, backwards: bool) -> _Results:  # noqa: FBT001
    function = {"Tanh": torch.tanh, "Relu": torch.relu}[activation]
    rows = []
    for t in _along(len(steps), backwards=backwards):
        hidden = function(torch.addmm(steps[t], hidden, weight))
        rows.append((hidden,))
    return hidden, *_stacked(rows, backwards=backwards)


def _plain_backward(
    of_y: Tensor,
    of_last: Tensor,
    slope: Tensor,
    weight: Tensor,
    backwards: bool,  # noqa: FBT001
) -> _Results:
    rows = []
    for t in _along(len(of_y), backwards=not backwards):
        inner = (of_last + of_y[t]) * slope[t]
        of_last = inner @ weight
        rows.append((inner,))
    return of_last, *_stacked(rows, backwards=not backwards)


RECURRENCES: Mapping[str, Callable[..., Any]] = {
    "recurrent.lstm": _lstm,
    "recurrent.lstm_backward": _lstm_backward,
    "recurrent.gru": _gru,
    "recurrent.gru_backward": _gru_backward,
    "recurrent.plain": _plain,
    "recurrent.plain_backward": _plain_backward,
}
