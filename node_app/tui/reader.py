"""What the screens ask the daemon for: the status, and of the views what is new in them."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from fieldfold.control.client import ControlClient
from fieldfold.control.recent import Slice
from fieldfold.logs import Entry
from node_app.records import Adoption, Carried, Decided, Drift, Run, Sample
from node_app.status import NodeStatus
from node_app.tui.snapshot import Snapshot

LOAD_OVER_S = 10.0
KEPT: Final = 1000
WHOLE: Final[dict[str, Any]] = {
    "history": tuple[Decided, ...],
    "outbox": tuple[Carried, ...],
    "drift": tuple[Drift, ...],
    "sample": tuple[Sample, ...],
}
"""Views that are read whole, when what they depend on has changed."""
GROWING: Final[dict[str, Any]] = {"log": Slice[Entry], "runs": Slice[Run], "adoptions": Slice[Adoption]}
"""Views of which only what is new is read."""


class NodeReader:
    """Remembers what it has seen of the daemon at the other end."""

    def __init__(self) -> None:
        self._loads: deque[tuple[float, float]] = deque()
        self._marks: dict[str, object] = {}

    def begin(self, before: Snapshot) -> Snapshot:
        """A daemon that was started again numbers its log and its runs from the beginning."""
        self._loads.clear()
        self._marks.clear()
        return Snapshot(status=before.status, glyphs=before.glyphs)

    def without(self, before: Snapshot) -> Snapshot:
        """Nobody says what the processor does."""
        return msgspec.structs.replace(before, cpu_percent=None)

    def look(self, client: ControlClient, wanted: frozenset[str], before: Snapshot) -> Snapshot:
        """The status, and what is new in the views that are wanted."""
        status = msgspec.convert(client.status(), NodeStatus)
        changes = {name: shown for name in wanted if (shown := self._view(client, name, status, before)) is not None}
        return msgspec.structs.replace(before, status=status, cpu_percent=self._load(status), **changes)

    def _view(self, client: ControlClient, name: str, status: NodeStatus, before: Snapshot) -> tuple[Any, ...] | None:
        """What is new under `name`; None where nothing is."""
        if name in GROWING:
            end, seen = getattr(status, f"{name}_end"), self._marks.get(name, 0)
            if end == seen:
                return None
            fresh = msgspec.convert(client.view(name, after=seen), GROWING[name])
            self._marks[name] = fresh.end
            return (*getattr(before, name), *fresh.items)[-KEPT:]
        mark: object = (status.accepted, status.rejected, status.version)
        if name == "outbox" and status.outbox:
            mark = None
        elif name == "sample":
            mark = (status.task, status.data)
        if mark is not None and mark == self._marks.get(name):
            return None
        self._marks[name] = mark
        whole: tuple[Any, ...] = msgspec.convert(client.view(name), WHOLE[name])
        return whole

    def _load(self, status: NodeStatus) -> float | None:
        """Percent of a core over the statuses of the last LOAD_OVER_S."""
        self._loads.append((status.uptime_s, status.cpu_s))
        while len(self._loads) > 2 and self._loads[1][0] < status.uptime_s - LOAD_OVER_S:
            self._loads.popleft()
        (began_at, before), (at, spent) = self._loads[0], self._loads[-1]
        return 100 * (spent - before) / (at - began_at) if at > began_at else None
