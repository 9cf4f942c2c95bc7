"""Windows over series, gathered when they are asked for: all of them together would be `window` times the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.schema import ColumnTarget, DataSchema
from fieldfold.sensors.source import Floats, Series
from fieldfold.sensors.split import Segment

MISSING_VALUE = "missing value"
MISSING_TARGET = "missing target"

Batch: TypeAlias = dict[str, NDArray[Any]]
"""`x` float32 `(n, window, num_features)`; `y` float32 `(n, 1)`, or int64 `(n,)` for classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """One part's windows.

    Attributes:
        rows: all series one after the other `(num_rows, num_features)`, shared by the parts of a dataset.
        starts: int64 `(num_windows,)`, the first row of each window.
        targets: as in a Batch, one for each window.
        window: rows of a window.
    """

    rows: NDArray[np.floating[Any]]
    starts: NDArray[np.int64]
    targets: NDArray[Any]
    window: int

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: NDArray[np.int64] | slice) -> Batch:
        """The windows of these indices, as arrays of their own."""
        starts = self.starts[indices]
        if not len(starts):
            x = np.empty((0, self.window, self.rows.shape[1]), np.float32)
        else:
            view = sliding_window_view(self.rows, self.window, axis=0).transpose(0, 2, 1)
            x = view[starts].astype(np.float32, copy=False)
        return {"x": x, "y": self.targets[indices].copy()}

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
        return Windows(self.rows, self.starts[indices], self.targets[indices], self.window)


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The windows of one segment.

    Attributes:
        starts: int64, first rows, counted from the start of the series.
        targets: as in a Batch.
        dropped: reason -> number of windows.
    """

    starts: NDArray[np.int64]
    targets: NDArray[Any]
    dropped: dict[str, int]


def cut(series: Series, segment: Segment, schema: DataSchema, *, last_only: bool = False) -> Cut:
    """The windows of `segment` that are complete; none when it is shorter than a window.

    Raises:
        DataError: when the task's target is a column and the series carries none.
    """
    rows = segment.stop - segment.start
    if rows < schema.window:
        starts = np.empty(0, np.int64)
    elif last_only:
        starts = np.array([segment.stop - schema.window])
    else:
        starts = np.arange(segment.start, segment.stop - schema.window + 1, schema.stride)
    holes = np.concatenate(([0], np.cumsum(np.isnan(series.values).any(axis=1))))
    whole = holes[starts + schema.window] == holes[starts]
    raw = _targets(series, starts + schema.window - 1, schema)
    known = ~np.isnan(raw)
    dropped = {MISSING_VALUE: int((~whole).sum()), MISSING_TARGET: int((whole & ~known).sum())}
    keep = whole & known
    return Cut(
        starts[keep], _scaled(raw[keep], schema), {reason: count for reason, count in dropped.items() if count}
    )


def too_few(num_windows: int, batch_size: int) -> DataError:
    """The error for data that does not fill one batch."""
    return DataError(
        f"the data gives {num_windows} windows to train on, a batch of this task needs {batch_size}",
        "name more files in data.files or more series in data.include_series",
    )


def _targets(series: Series, last_rows: NDArray[np.int64], schema: DataSchema) -> Floats:
    """Targets in their own unit, before cap and scale; NaN where missing."""
    if not isinstance(schema.target, ColumnTarget):
        return (len(series.values) - 1 - last_rows).astype(np.float64) + series.remaining_at_end
    if series.target is None:
        raise DataError(f"series {series.id}: has no target", "set data.target to the column that holds it")
    return series.target[last_rows]


def _scaled(raw: Floats, schema: DataSchema) -> NDArray[Any]:
    target = schema.target
    if isinstance(target, ColumnTarget):
        if target.classes:
            return raw.astype(np.int64)
        return (raw / target.scale).astype(np.float32).reshape(-1, 1)
    return (np.minimum(raw, target.cap) / target.scale).astype(np.float32).reshape(-1, 1)
