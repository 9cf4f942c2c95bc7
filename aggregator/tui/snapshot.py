"""What the screens are drawn from: one frozen picture of the aggregator, or of its absence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aggregator.ledger.records import Operation
from aggregator.records import AggregatorStatus, Released, Taken
from aggregator.tui.orders import Order
from fieldfold.terminal.attachment import Picture


class Snapshot(Picture, frozen=True, kw_only=True):
    """All that is known.

    Attributes:
        status: None before the aggregator has answered.
        versions: oldest first.
        voices: node -> its share of the weights in the newest versions.
        decisions, rejections, operations: newest first.
        node: the one that is looked at in depth; empty for none. `of_node`: the newest decisions on its updates.
        order: by what the nodes are sorted.
    """

    status: AggregatorStatus | None = None
    versions: tuple[Released, ...] = ()
    voices: Mapping[str, float] = MappingProxyType({})
    decisions: tuple[Taken, ...] = ()
    rejections: tuple[Taken, ...] = ()
    operations: tuple[Operation, ...] = ()
    node: str = ""
    of_node: tuple[Taken, ...] = ()
    order: Order = "node"
