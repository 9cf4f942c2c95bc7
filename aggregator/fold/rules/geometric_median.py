"""The geometric median: the point with the least sum of distances to all deltas.

Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE TSP 2022: smoothed Weiszfeld steps,
z <- sum_i b_i u_i / sum_i b_i with b_i = 1 / max(nu, |u_i - z|), begun at the mean. Since z is always a mean of the
rows, their inner products suffice.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from aggregator.fold.rules.rows import Combined, Rows, Shares, inner_products, weighed
from fieldfold.params import Vector

SMOOTHING = 1e-3
"""nu, as a share of the median distance."""


class GeometricMedian(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="geometric-median", tag_field="name"
):
    """`iterations` Weiszfeld steps.

    The paper finds that three or four are enough. Where a lie is a thousand times longer than the truth it takes
    more, since each brings the result nearer by honest / lying rows only; they are cheap.
    """

    iterations: Annotated[int, msgspec.Meta(ge=1, le=100)] = 32

    def combine(self, rows: Rows, _center: Vector) -> Combined:
        """Every row has a share; the far ones a small one."""
        return weighed(rows, weiszfeld(inner_products(rows), self.iterations))


def weiszfeld(products: NDArray[np.float64], iterations: int) -> Shares:
    """The rows' shares in their geometric median, (K,), which sum to 1; `products` are inner products, (K, K)."""
    count = len(products)
    shares = np.full(count, 1 / count)
    for _ in range(iterations):
        to_rows = products @ shares
        distances = np.sqrt(np.maximum(np.diagonal(products) - 2 * to_rows + shares @ to_rows, 0.0))
        smallest = SMOOTHING * float(np.median(distances))
        if smallest == 0.0:
            return shares
        pulls = 1 / np.maximum(distances, smallest)
        shares = pulls / pulls.sum()
    return shares
