"""The geometric median of deltas that were first mixed with their neighbours: for a hostile fleet of unlike gateways.

Three things follow one another, all of them on lengths and distances only:

1. Twins share one vote: of rows nearer to one another than `twins` times the longer one only the first counts, since
   liars who agree on a vector of honest looks ("A Little Is Enough") are as many copies of it. More rows than may lie
   are no liars but a fleet that is alike: they keep their votes.
2. Each row becomes the mean of the (1 - f) K rows nearest to it: nearest-neighbour mixing, Allouah et al., "Fixing by
   Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023.
3. The geometric median of these; see geometric_median.py.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from aggregator.fold.rules.geometric_median import weiszfeld
from aggregator.fold.rules.rows import Combined, Fraction, Rows, inner_products, squared_distances, weighed
from fieldfold.params import Vector


class MixedMedian(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mixed-median", tag_field="name"):
    """f = floor(`fraction` x K), of the K rows that are no later twin of another."""

    fraction: Fraction = 0.3
    twins: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    iterations: Annotated[int, msgspec.Meta(ge=1, le=100)] = 32

    def combine(self, rows: Rows, _center: Vector) -> Combined:
        """The share of a row is that in all the means it was mixed into."""
        products = inner_products(rows)
        voters = _without_twins(squared_distances(products), np.diagonal(products), self.twins, self.fraction)
        among = products[np.ix_(voters, voters)]
        mixing = _neighbours(squared_distances(among), len(voters) - int(self.fraction * len(voters)))
        shares = np.zeros(len(rows))
        shares[voters] = weiszfeld(mixing @ among @ mixing.T, self.iterations) @ mixing
        return weighed(rows, shares)


def _without_twins(
    squares: NDArray[np.float64], lengths: NDArray[np.float64], twins: float, fraction: float
) -> NDArray[np.intp]:
    """Indices of the rows that keep their vote."""
    near = squares < twins**2 * np.maximum(lengths[:, None], lengths[None])
    is_one_of_many = near.sum(axis=1) > fraction * len(squares)
    kept: list[int] = []
    for row, one_of_many in enumerate(is_one_of_many):
        if one_of_many or not near[row, kept].any():
            kept.append(row)
    return np.array(kept, np.intp)


def _neighbours(squares: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """What puts in place of each row the mean of the `count` nearest, itself among them; of equals the earlier."""
    nearest = np.argsort(squares.astype(np.float32), axis=1, kind="stable")[:, :count]
    mixing = np.zeros_like(squares)
    np.put_along_axis(mixing, nearest, 1 / count, axis=1)
    return mixing
