"""Coordinate-wise median and trimmed mean.

Yin, Chen, Kannan and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
Each parameter is judged by itself: what few say far outside is left out there. What only few know is left out too, so
that neither suits a fleet whose gateways see different things.
"""

from __future__ import annotations

import msgspec
import numpy as np

from aggregator.fold.rules.rows import Combined, Fraction, Rows
from fieldfold.params import Vector


class CoordinateMedian(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="coordinate-median", tag_field="name"
):
    """The median of every parameter."""

    def combine(self, rows: Rows, _center: Vector) -> Combined:
        """Of an even number of rows: the mean of the two in the middle."""
        return Combined(np.median(rows, axis=0).astype(np.float32), _even(rows))


class TrimmedMean(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="trimmed-mean", tag_field="name"):
    """The mean of what is left of every parameter without the `fraction` highest and the `fraction` lowest."""

    fraction: Fraction = 0.3

    def combine(self, rows: Rows, _center: Vector) -> Combined:
        """Floor(fraction x K) rows go on either side."""
        cut = int(self.fraction * len(rows))
        kept = np.sort(rows, axis=0)[cut : len(rows) - cut]
        return Combined(kept.mean(axis=0, dtype=np.float32), _even(rows))


def _even(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Every row has its word in some parameter."""
    return np.full(len(rows), 1 / len(rows))
