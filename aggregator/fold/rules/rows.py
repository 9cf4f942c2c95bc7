"""Deltas side by side, and what the rules that only look at lengths and angles need of them."""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.params import Vector

Rows: TypeAlias = NDArray[np.float32]
"""Deltas of one step, (K, num_params)."""
Shares: TypeAlias = NDArray[np.float64]
"""With what weight each row went in, (K,)."""
Fraction: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=0.5)]
"""Share of the rows that may lie; whatever the rule, a half cannot be borne."""
BLOCK = 1 << 16
"""Parameters at a time, so that float64 copies stay small."""


class Combined(NamedTuple):
    """What a rule makes of a step's rows: a vector (num_params,), and each row's share in it."""

    vector: Vector
    shares: Shares


def inner_products(rows: Rows) -> NDArray[np.float64]:
    """All of them, (K, K), in float64."""
    products = np.zeros((len(rows), len(rows)))
    for begin in range(0, rows.shape[1], BLOCK):
        block = rows[:, begin : begin + BLOCK].astype(np.float64)
        products += block @ block.T
    return products


def squared_distances(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between rows whose inner products are given, (K, K)."""
    squares = np.diagonal(products)
    return np.maximum(squares[:, None] + squares[None] - 2 * products, 0.0)


def weighed(rows: Rows, shares: Shares) -> Combined:
    """The sum of share x row, in the rows' order.

    Shares are rounded to float32 before: float64 sums differ in their last bits from one processor to the next, and
    the step must not.
    """
    rounded = shares.astype(np.float32)
    vector = np.zeros(rows.shape[1], np.float32)
    for share, row in zip(rounded, rows, strict=True):
        vector += share * row
    return Combined(vector, rounded.astype(np.float64))
