"""By what a fleet can be sorted."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Order: TypeAlias = Literal[
    "node", "state", "version", "stale", "pace", "weight", "moves", "accepted", "refused", "sent", "seen"
]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)


def following(order: Order) -> Order:
    """The next one."""
    return ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]
