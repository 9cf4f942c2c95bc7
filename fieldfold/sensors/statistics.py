"""Normalisation with statistics of the whole fleet, from sums that each node sends once.

The variance is E[x^2] - E[x]^2 in float64. That costs as many digits as (mean/std)^2 has: a sensor at 9046 +- 20
keeps 10 of 16. Below std/|mean| of about 3e-6 nothing reliable is left and the feature is taken for constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.schema import MAX_FEATURES
from fieldfold.sensors.source import MAX_MAGNITUDE, Floats

MAX_COUNT = float(1 << 53)
CONSTANT_BELOW = 1e-11
"""Variance over squared mean: what rounding of sums over a large fleet may leave of a constant."""
TINY = 1e-300
"""Squares below this lose their digits."""
LIMIT = 1e9
"""Normalised values are cut off here, so that their squares stay finite in float32."""
BLOCK_ROWS = 1 << 16


class FeatureSums(msgspec.Struct, frozen=True):
    """Per feature that is a number, in the schema's order: rows with a value, their sum, the sum of their squares."""

    count: tuple[float, ...]
    total: tuple[float, ...]
    total_of_squares: tuple[float, ...]


class Normalisation(msgspec.Struct, frozen=True):
    """Per feature that is a number, in the schema's order: a value x becomes (x - mean) / std.

    Raises:
        DataError: for lengths that differ, values that are not finite, or a std that is not above zero.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = len(self.mean) == len(self.std) and all(map(math.isfinite, self.mean + self.std))
        if not sound or min(self.std, default=1.0) <= 0:
            raise DataError("the normalisation is not one finite mean and one positive std for each feature")

    @classmethod
    def identity(cls, num_features: int) -> Normalisation:
        """Leaves every value as it is."""
        return cls((0.0,) * num_features, (1.0,) * num_features)

    def over(self, places: Sequence[int], num_features: int) -> Normalisation:
        """The same for features of which only those at `places` are normalised; the others stay as they are.

        Raises:
            DataError: when it is for another number of places.
        """
        if len(places) != len(self.mean):
            raise DataError(f"the normalisation is for {len(self.mean)} features, the task has {len(places)} numbers")
        mean, std = [0.0] * num_features, [1.0] * num_features
        for place, *moments in zip(places, self.mean, self.std, strict=True):
            mean[place], std[place] = moments
        return Normalisation(tuple(mean), tuple(std))

    def apply(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Normalised copy of `values` `(rows, num_features)`, within +-LIMIT; NaN stays NaN.

        Raises:
            DataError: when the number of features differs.
        """
        if values.shape[1:] != (len(self.mean),):
            raise DataError(f"the normalisation is for {len(self.mean)} features, the data has {values.shape[1]}")
        mean, std = np.array(self.mean), np.array(self.std)
        out = np.empty(values.shape, np.float32)
        for start in range(0, len(values), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            with np.errstate(over="ignore"):
                scaled = (values[block] - mean) / std
            out[block] = np.clip(scaled, -LIMIT, LIMIT)
        return out


def sums_of(parts: Iterable[Floats], num_features: int) -> FeatureSums:
    """Sums over the rows of all arrays `(rows, num_features)`, NaN left out."""
    sums = np.zeros((3, num_features))
    for values in parts:
        for feature in range(num_features):
            column = values[:, feature]
            column = column[~np.isnan(column)]
            sums[:, feature] += len(column), column.sum(), np.square(column).sum()
    return FeatureSums(*(tuple(row) for row in sums.tolist()))


def merge(first: FeatureSums, second: FeatureSums) -> FeatureSums:
    """The sums over the rows of both.

    Raises:
        DataError: when they are about different numbers of features.
    """
    if len(first.count) != len(second.count):
        raise DataError(f"sums over {len(first.count)} and {len(second.count)} features cannot be merged")
    return FeatureSums(
        *(
            tuple(a + b for a, b in zip(mine, theirs, strict=True))
            for mine, theirs in (
                (first.count, second.count),
                (first.total, second.total),
                (first.total_of_squares, second.total_of_squares),
            )
        )
    )


def normalisation(sums: FeatureSums) -> Normalisation:
    """Mean and population standard deviation; std 1 for a feature that is constant or was never seen."""
    pairs = [
        _moments(count, total, squares)
        for count, total, squares in zip(sums.count, sums.total, sums.total_of_squares, strict=True)
    ]
    return Normalisation(tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs))


def check(sums: FeatureSums, num_features: int) -> None:
    """Refuses sums that no data can have; for those that come from outside.

    Raises:
        DataError: naming the feature's number and what is wrong.
    """
    lengths = {len(sums.count), len(sums.total), len(sums.total_of_squares)}
    if lengths != {num_features} or num_features > MAX_FEATURES:
        raise DataError(f"sums of {sorted(lengths)} features, the task has {num_features}")
    for feature, (count, total, squares) in enumerate(
        zip(sums.count, sums.total, sums.total_of_squares, strict=True), start=1
    ):
        fault = _fault(count, total, squares)
        if fault:
            raise DataError(f"sums of feature {feature}: {fault}")


def _moments(count: float, total: float, squares: float) -> tuple[float, float]:
    if count == 0:
        return 0.0, 1.0
    mean = total / count
    variance = squares / count - mean * mean
    if variance <= CONSTANT_BELOW * mean * mean + TINY:
        return mean, 1.0
    return mean, math.sqrt(variance)


def _fault(count: float, total: float, squares: float) -> str:
    if not all(map(math.isfinite, (count, total, squares))):
        return "not finite"
    if not 0 <= count <= MAX_COUNT or count != int(count):
        return f"{count} is not a number of rows"
    if abs(total) > count * MAX_MAGNITUDE or not 0 <= squares <= count * MAX_MAGNITUDE**2:
        return "too large for that many rows"
    if squares * count < total * total * (1 - 1e-9) - TINY:
        return "the sum of squares is too small for the sum"
    return ""
