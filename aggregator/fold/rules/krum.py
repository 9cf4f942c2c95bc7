"""Krum and multi-Krum: the deltas that lie closest to their neighbours.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017: a row's score is the sum of the squared distances to its K - f - 2 nearest; the lowest wins, and in
multi-Krum the mean of the m lowest.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from aggregator.fold.rules.rows import Combined, Fraction, Rows, inner_products, squared_distances, weighed
from fieldfold.params import Vector


class Krum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="krum", tag_field="name"):
    """f = floor(`fraction` x K). `selected` is m; 0 takes K - f, which is the usual multi-Krum, and 1 is Krum."""

    fraction: Fraction = 0.3
    selected: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0

    def combine(self, rows: Rows, _center: Vector) -> Combined:
        """The mean of the rows with the lowest scores; of equals the earlier."""
        count = len(rows)
        liars = int(self.fraction * count)
        neighbours = max(1, count - liars - 2)
        # The distance of a row to itself is the first of each line.
        nearest = np.sort(squared_distances(inner_products(rows)), axis=1)[:, 1 : 1 + neighbours]
        # In float32, so that rounding of float64 sums does not order what is equal.
        scores = nearest.sum(axis=1).astype(np.float32)
        best = np.argsort(scores, kind="stable")[: min(count, self.selected or count - liars)]
        shares = np.zeros(count)
        shares[best] = 1 / len(best)
        return weighed(rows, shares)
