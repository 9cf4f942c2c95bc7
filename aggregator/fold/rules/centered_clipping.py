"""Centered clipping: no delta moves the step far from where the last one went.

Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021:
v <- v + (1/K) sum_i (u_i - v) min(1, radius / |u_i - v|), begun at the last step's vector.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from aggregator.fold.rules.rows import Combined, Rows, inner_products, weighed
from fieldfold.params import Vector


class CenteredClipping(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="centered-clipping", tag_field="name"
):
    """`iterations` steps; the radius, which the paper leaves open, is the rows' distance from v at this quantile."""

    iterations: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    quantile: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5

    def combine(self, rows: Rows, center: Vector) -> Combined:
        """`center` is the last step's vector. It counts as one more row, whose share is not told."""
        with_center = np.concatenate([rows, center[None]])
        products = inner_products(with_center)
        count = len(rows)
        shares = np.zeros(count + 1)
        shares[-1] = 1.0
        for _ in range(self.iterations):
            to_rows = products @ shares
            squares = np.diagonal(products) - 2 * to_rows + shares @ to_rows
            distances = np.sqrt(np.maximum(squares[:count], 0.0))
            radius = float(np.quantile(distances, self.quantile))
            if radius == 0.0:
                break
            kept = np.minimum(1.0, radius / np.maximum(distances, radius)) / count
            shares = shares * (1 - kept.sum())
            shares[:count] += kept
        combined = weighed(with_center, shares)
        return Combined(combined.vector, combined.shares[:count])
