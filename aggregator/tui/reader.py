"""What the screens ask the aggregator for: the status, and a view when a number in it says that there is news."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aggregator.ledger.records import Operation
from aggregator.records import AggregatorStatus, Released, Taken
from aggregator.tui.snapshot import Snapshot
from fieldfold.control.client import ControlClient

VIEWS: Final[dict[str, Any]] = {
    "versions": tuple[Released, ...],
    "voices": dict[str, float],
    "decisions": tuple[Taken, ...],
    "rejections": tuple[Taken, ...],
    "operations": tuple[Operation, ...],
}


class FleetReader:
    """Remembers what it has seen.

    Attributes:
        node: whose updates are looked at; set by the screens' thread.
    """

    def __init__(self) -> None:
        self._marks: dict[str, object] = {}
        self.node = ""

    def begin(self, before: Snapshot) -> Snapshot:
        """What was last heard, until it is heard anew."""
        self._marks.clear()
        return before

    def without(self, before: Snapshot) -> Snapshot:
        """What was last heard stays."""
        return before

    def look(self, client: ControlClient, wanted: frozenset[str], before: Snapshot) -> Snapshot:
        """The status, and what is new in the views that are wanted."""
        status = msgspec.convert(client.status(), AggregatorStatus)
        decided = status.accepted + status.rejected
        marks: dict[str, object] = {
            "versions": (status.task, status.version, status.score_version),
            "voices": (status.task, status.version),
            "decisions": decided,
            "rejections": status.rejected,
            "operations": object(),
        }
        changes = {
            name: msgspec.convert(client.view(name), VIEWS[name])
            for name in sorted(wanted & VIEWS.keys())
            if self._is_new(name, marks[name])
        }
        if "of_node" in wanted and (node := self.node) and self._is_new("of_node", (node, decided)):
            changes |= {
                "node": node,
                "of_node": msgspec.convert(client.view("decisions", node=node), VIEWS["decisions"]),
            }
        return msgspec.structs.replace(before, status=status, **changes)

    def _is_new(self, name: str, mark: object) -> bool:
        """Whether a view has changed since it was read; it is read then."""
        is_new = self._marks.get(name) != mark
        self._marks[name] = mark
        return is_new
