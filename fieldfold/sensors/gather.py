"""Blocks of rows -> series, whatever table they come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.cells import as_number, canonical_label, listed
from fieldfold.sensors.columns import Block, Selection
from fieldfold.sensors.source import MAX_CELLS, MAX_MAGNITUDE, MAX_SERIES, DataConfig, Floats, Series


class Gathering:
    """Rows on their way into series: add the blocks in the order of time, then take the series.

    Attributes:
        other_rows: rows left out because their series belong to other gateways.
    """

    def __init__(self, config: DataConfig, selection: Selection) -> None:
        self._selection = selection
        self._included = frozenset(canonical_label(str(name)) for name in config.include_series)
        self._missing = frozenset(config.missing_values) | {"", "nan", "NaN"}
        self._sentinels = [number for text in config.missing_values if (number := as_number(text)) is not None]
        self._numbers: dict[str, int] = {}
        self._num_cells = 0
        self._values: list[Floats] = []
        self._series: list[NDArray[np.int64]] = []
        self._orders: list[Floats] = []
        self.other_rows = 0

    def names(self) -> list[str]:
        """Every series met so far, included or not, in the order of their names, numbers in numeric order."""
        return sorted(self._numbers, key=_natural)

    def add(self, block: Block, origin: str, name: str) -> Floats:
        """Takes the included rows of `block`, whose series is `name` where it has no series column.

        Returns:
            The values that were kept, float64 `(rows, num_features)`, every missing one NaN.

        Raises:
            DataError: naming `origin`, for a row without series, an unknown category or too much data.
        """
        numbers = self._numbers_of(block, origin, name)
        keep = numbers >= 0
        values = self._values_of(block, keep, origin)
        self.other_rows += len(keep) - len(values)
        self._num_cells += values.size
        if self._num_cells > MAX_CELLS:
            raise DataError(
                f"{origin}: with this file the data exceeds {MAX_CELLS} values",
                "name fewer files in data.files or fewer series in data.include_series",
            )
        self._values.append(values)
        self._series.append(numbers[keep])
        if block.order is not None:
            self._orders.append(block.order[keep])
        return values[:, : self._selection.num_features]

    def take(self, ends: Floats | None) -> list[Series]:
        """The series in the order of their names; what was gathered is handed over.

        Args:
            ends: remaining life at the end of each of `names()`.

        Raises:
            DataError: when an included series was never met.
        """
        names = self.names()
        unmet = sorted(self._included.difference(names), key=_natural)
        if unmet:
            raise DataError(
                f"data.include_series: {listed(unmet)}: in none of the files", f"series there: {listed(names)}"
            )
        if not self._values:
            return []
        rank = np.empty(len(names), np.int64)
        rank[[self._numbers[name] for name in names]] = np.arange(len(names))
        keys = rank[np.concatenate(self._series)]
        by = (np.concatenate(self._orders), keys) if self._orders else (keys,)
        order = np.lexsort(by)
        values = _sorted(self._values, order)
        self._values, self._series, self._orders = [], [], []
        num_features = self._selection.num_features
        places, starts = np.unique(keys[order], return_index=True)
        stops = np.append(starts[1:], len(values))
        return [
            Series(
                id=names[place],
                values=values[start:stop, :num_features],
                targets=values[start:stop, num_features:],
                remaining_at_end=0.0 if ends is None else float(ends[place]),
            )
            for place, start, stop in zip(places, starts, stops, strict=True)
        ]

    def _numbers_of(self, block: Block, origin: str, name: str) -> NDArray[np.int64]:
        """For each row the number of its series, -1 where it is not included."""
        if block.series is None:
            return np.full(len(block.numbers), self._number(name), np.int64)
        unique, inverse = np.unique(block.series, return_inverse=True)
        labels = [canonical_label(str(text)) for text in unique]
        if not self._missing.isdisjoint(labels):
            raise DataError(f"{origin}: a row names no series (data.series)", "fill in that column in every row")
        return np.array([self._number(label) for label in labels], np.int64)[inverse]

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._numbers))
        if number >= MAX_SERIES:
            raise DataError(
                f"the data holds more than {MAX_SERIES} series", "is data.series the column that tells series apart?"
            )
        return number if not self._included or name in self._included else -1

    def _values_of(self, block: Block, keep: NDArray[np.bool_], origin: str) -> Floats:
        """The kept rows of the selection's columns, features and targets, `(rows, len(selection.values))`."""
        numbers = self._clean(block.numbers[keep])
        if not block.texts.shape[1]:
            return numbers
        texts = iter(block.texts[keep].T)
        columns = iter(numbers.T)
        return np.stack(
            [
                next(columns)
                if wanted.vocabulary is None
                else wanted.vocabulary.look_up(next(texts), self._missing, f"{origin} ({wanted.key})")
                for wanted in self._selection.values
            ],
            axis=1,
        )

    def _clean(self, values: Floats) -> Floats:
        """Puts NaN where a value is missing; `values` is changed in place."""
        with np.errstate(invalid="ignore"):
            values[~(np.abs(values) <= MAX_MAGNITUDE)] = np.nan
        for sentinel in self._sentinels:
            values[values == sentinel] = np.nan
        return values


def _sorted(blocks: list[Floats], order: NDArray[np.int64]) -> Floats:
    joined = np.concatenate(blocks)
    return joined if bool((np.diff(order) > 0).all()) else joined[order]


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers in numeric order, before all other names."""
    digits = name.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 40:
        return 0, int(name), name
    return 1, 0, name
