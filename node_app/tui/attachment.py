"""The one connection of the screens to the daemon: a thread that asks, and says what it has heard."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from fieldfold.control.client import ControlClient
from fieldfold.control.recent import Slice
from fieldfold.errors import ControlError
from fieldfold.logs import Entry
from node_app.records import Adoption, Carried, Decided, Drift, Run
from node_app.status import NodeStatus
from node_app.tui.snapshot import NO_RIGHTS, Snapshot

EVERY_S = 1.0
PATIENCE_S = 5.0
LOAD_OVER_S = 10.0
KEPT: Final = 1000
WHOLE: Final[dict[str, Any]] = {
    "history": tuple[Decided, ...],
    "outbox": tuple[Carried, ...],
    "drift": tuple[Drift, ...],
}
"""Views that are read whole, when what they depend on has changed."""
GROWING: Final[dict[str, Any]] = {"log": Slice[Entry], "runs": Slice[Run], "adoptions": Slice[Adoption]}
"""Views of which only what is new is read."""


class Attachment:
    """Attaches to the daemon, again whenever it was lost; `tell` and `answer` are called from its thread.

    Args:
        tell: takes every new snapshot.
        answer: takes what came of a command, and whether it was carried out.
        every_s: time between two looks.
        clock: seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - two ways out, two settings and a clock
        self,
        path: Path,
        *,
        read_only: bool,
        tell: Callable[[Snapshot], object],
        answer: Callable[[str, bool], object],
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._path, self._read_only, self._every_s = path, read_only, every_s
        self._tell, self._answer = tell, answer
        self._changed = threading.Condition()
        self._stopping = self._woken = False
        self._wanted: frozenset[str] = frozenset()
        self._commands: deque[str] = deque()
        self._snapshot = Snapshot()
        self._loads: deque[tuple[float, float]] = deque()
        self._marks: dict[str, object] = {}
        self._thread = threading.Thread(target=self._run, name="attachment", daemon=True)

    # -- from the screens --

    def start(self) -> None:
        """Begins asking."""
        self._thread.start()

    def stop(self) -> None:
        """Hangs up; the daemon goes on as it was."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def want(self, views: frozenset[str]) -> None:
        """Asks for these views from now on, at once for the first time."""
        with self._changed:
            self._wanted, self._woken = views, True
            self._changed.notify()

    def command(self, name: str) -> None:
        """Has the daemon carry out a command; `answer` says what came of it."""
        with self._changed:
            self._commands.append(name)
            self._woken = True
            self._changed.notify()

    # -- the thread --

    def _run(self) -> None:
        while not self._stopping:
            try:
                with ControlClient(self._path, timeout_s=PATIENCE_S) as client:
                    self._attach(client)
                    while not self._stopping:
                        self._carry_out(client)
                        self._look(client)
                        self._rest()
            except ControlError as error:
                self._lose(error)
                self._rest()

    def _attach(self, client: ControlClient) -> None:
        """A daemon that was started again numbers its log and its runs from the beginning."""
        self._loads.clear()
        self._marks.clear()
        rights = client.attach(read_only=self._read_only)
        self._snapshot = Snapshot(now=self._clock(), rights=rights, status=self._snapshot.status)

    def _rest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._woken, self._every_s)
            self._woken = False

    def _lose(self, error: ControlError) -> None:
        while self._commands:
            self._answer(f"{self._commands.popleft()}: {error}", False)
        lost_at = self._snapshot.lost_at or self._clock()
        self._say(lost=str(error), lost_at=lost_at, rights=NO_RIGHTS, cpu_percent=None)

    def _carry_out(self, client: ControlClient) -> None:
        while self._commands:
            try:
                self._answer(str(client.command(self._commands.popleft())), True)
            except ControlError as error:
                self._answer(str(error), False)

    def _look(self, client: ControlClient) -> None:
        try:
            status = msgspec.convert(client.status(), NodeStatus)
            changes = {
                name: shown for name in self._wanted if (shown := self._view(client, name, status)) is not None
            }
        except msgspec.ValidationError as error:
            raise ControlError(
                f"the daemon says what is not understood: {error}", "is it of another version?"
            ) from None
        self._say(status=status, cpu_percent=self._load(status), lost="", lost_at=0.0, **changes)

    def _say(self, **changes: Any) -> None:
        self._snapshot = msgspec.structs.replace(self._snapshot, now=self._clock(), **changes)
        self._tell(self._snapshot)

    def _view(self, client: ControlClient, name: str, status: NodeStatus) -> tuple[Any, ...] | None:
        """What is new under `name`; None where nothing is."""
        if name in GROWING:
            end, seen = getattr(status, f"{name}_end"), self._marks.get(name, 0)
            if end == seen:
                return None
            fresh = msgspec.convert(client.view(name, after=seen), GROWING[name])
            self._marks[name] = fresh.end
            return (*getattr(self._snapshot, name), *fresh.items)[-KEPT:]
        mark = None if name == "outbox" and status.outbox else (status.accepted, status.rejected, status.version)
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
