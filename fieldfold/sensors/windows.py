"""Windows over series, gathered when they are asked for: all of them together would be `window` times the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.sensors.schema import ColumnTarget, DataSchema, InputTarget, LabelsTarget, RemainingLifeTarget, Target
from fieldfold.sensors.source import Floats, Series
from fieldfold.sensors.split import Segment

MISSING_VALUE = "missing value"
MISSING_TARGET = "missing target"

Batch: TypeAlias = dict[str, NDArray[Any]]
"""The arrays of `arrays.py` by name, `(n, *shape)`: inputs, then targets."""


class Origin(NamedTuple):
    """Where an array of a batch comes from.

    Attributes:
        table: features or targets of each row.
        places: its columns there.
        per_step: all rows of the window, or its last.
    """

    array: Array
    table: Literal["rows", "targets"]
    places: tuple[int, ...]
    per_step: bool


def origins(schema: DataSchema) -> tuple[Origin, ...]:
    """One for each array of a batch, inputs before targets."""
    found = [
        Origin(array, "rows", places, per_step=True)
        for array, places in zip(input_arrays(schema), schema.inputs.values(), strict=True)
    ]
    first = 0
    for array, target in zip(target_arrays(schema), schema.targets, strict=True):
        if isinstance(target, InputTarget):
            found.append(Origin(array, "rows", schema.inputs[target.input], per_step=True))
            continue
        stop = first + _num_columns(target)
        found.append(Origin(array, "targets", tuple(range(first, stop)), target.per_step))
        first = stop
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """One part's windows.

    Attributes:
        rows: all series one after the other `(num_rows, num_features)`, shared by the parts of a dataset.
        targets: float32 `(num_rows, num_columns)`, `target_rows` of all series, shared too.
        starts: int64 `(num_windows,)`, the first row of each window.
        window: rows of a window.
        origins: those of the task's schema.
    """

    rows: NDArray[np.floating[Any]]
    targets: NDArray[np.float32]
    starts: NDArray[np.int64]
    window: int
    origins: tuple[Origin, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: NDArray[np.int64] | slice) -> Batch:
        """The windows of these indices, as arrays of their own."""
        starts = self.starts[indices]
        return {origin.array.name: self._gather(origin, starts) for origin in self.origins}

    def _gather(self, origin: Origin, starts: NDArray[np.int64]) -> NDArray[Any]:
        table = self.rows if origin.table == "rows" else self.targets
        values: NDArray[Any]
        if not len(starts):
            values = np.empty((0, len(origin.places)))
        elif origin.per_step:
            values = sliding_window_view(table, self.window, axis=0).transpose(0, 2, 1)[starts]
        else:
            values = table[starts + self.window - 1]
        if values.shape[-1] != len(origin.places):
            values = values[..., origin.places]
        return values.reshape(len(starts), *origin.array.shape).astype(origin.array.dtype, copy=False)

    def all(self) -> Batch:
        """Every window at once; for parts known to be small."""
        return self.batch(slice(None))

    def chunks(self, size: int) -> Iterator[Batch]:
        """Every window in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def epoch(self, batch_size: int, rng: np.random.Generator, *, keep_short: bool = False) -> Iterator[Batch]:
        """Every window once, in the random order of `rng`; a short last batch only when `keep_short`."""
        order = rng.permutation(len(self))
        stop = len(self) if keep_short else len(self) - len(self) % batch_size
        for start in range(0, stop, batch_size):
            yield self.batch(order[start : start + batch_size])

    def batches(self, batch_size: int, rng: np.random.Generator, *, keep_short: bool = False) -> Iterator[Batch]:
        """Epoch after epoch without end.

        Raises:
            DataError: when there are too few windows for a single batch.
        """
        if len(self) < (1 if keep_short else batch_size):
            raise too_few(len(self), batch_size)
        while True:
            yield from self.epoch(batch_size, rng, keep_short=keep_short)

    def thinned(self, limit: int) -> Windows:
        """At most `limit` windows, evenly spaced over all of them."""
        if len(self) <= limit:
            return self
        indices = np.linspace(0, len(self) - 1, limit).round().astype(np.int64)
        return replace(self, starts=self.starts[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The windows of one segment.

    Attributes:
        starts: int64, first rows, counted from the start of the series.
        dropped: reason -> number of windows.
    """

    starts: NDArray[np.int64]
    dropped: dict[str, int]


def cut(series: Series, segment: Segment, schema: DataSchema, *, last_only: bool = False) -> Cut:
    """The windows of `segment` that are complete; none when it is shorter than a window."""
    rows = segment.stop - segment.start
    if rows < schema.window:
        starts = np.empty(0, np.int64)
    elif last_only:
        starts = np.array([segment.stop - schema.window])
    else:
        starts = np.arange(segment.start, segment.stop - schema.window + 1, schema.stride)
    stops = starts + schema.window
    whole = _unbroken(series.values, starts, stops)
    known = np.ones(len(starts), np.bool_)
    if series.targets is not None:
        first = 0
        for target in schema.targets:
            stop = first + (0 if isinstance(target, RemainingLifeTarget) else _num_columns(target))
            per_step = not isinstance(target, InputTarget) and target.per_step
            known &= _unbroken(series.targets[:, first:stop], starts if per_step else stops - 1, stops)
            first = stop
    dropped = {MISSING_VALUE: int((~whole).sum()), MISSING_TARGET: int((whole & ~known).sum())}
    return Cut(starts[whole & known], {reason: count for reason, count in dropped.items() if count})


def _unbroken(values: Floats, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether no value is missing in the rows from each of `starts` to each of `stops`."""
    holes = np.concatenate(([0], np.cumsum(np.isnan(values).any(axis=1))))
    unbroken: NDArray[np.bool_] = holes[stops] == holes[starts]
    return unbroken


def target_rows(series: Series, schema: DataSchema) -> NDArray[np.float32]:
    """The targets of each row as the loss takes them, capped and scaled, `(rows, num_columns)`; NaN where missing.

    Raises:
        DataError: when a target of the task is a column that the series does not carry.
    """
    columns = iter(() if series.targets is None else series.targets.T)
    found = np.empty((len(series.values), num_columns(schema)), np.float32)
    place = 0
    for target in schema.targets:
        for _ in range(_num_columns(target)):
            if isinstance(target, RemainingLifeTarget):
                life = np.arange(len(found))[::-1] + series.remaining_at_end
                found[:, place] = np.minimum(life, target.cap) / target.scale
            elif (column := next(columns, None)) is None:
                raise DataError(f"series {series.id}: has no target", "set data.target to the column that holds it")
            elif isinstance(target, ColumnTarget):
                found[:, place] = (column - target.offset) / target.scale
            else:
                found[:, place] = column
            place += 1
    return found


def too_few(num_windows: int, batch_size: int) -> DataError:
    """The error for data that does not fill one batch."""
    return DataError(
        f"the data gives {num_windows} windows to train on, a batch of this task needs {batch_size}",
        "name more files in data.files or more series in data.include_series",
    )


def num_columns(schema: DataSchema) -> int:
    """How many columns `target_rows` has."""
    return sum(map(_num_columns, schema.targets))


def _num_columns(target: Target) -> int:
    if isinstance(target, InputTarget):
        return 0
    return len(target.names) if isinstance(target, LabelsTarget) else 1
