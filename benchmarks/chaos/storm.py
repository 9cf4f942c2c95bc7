"""Brings a plan of faults upon a fleet, one after the other and many at once."""

from __future__ import annotations

import collections
import heapq
import itertools
import time
from collections.abc import Callable, Iterable

from benchmarks.chaos.fleet import UNLIMITED, ChaosFleet
from benchmarks.chaos.plan import Fault

LOOK_S = 0.05


class Storm:
    """Owns what is to be undone, and when.

    Attributes:
        counts: faults that came about, by kind; one for a program that is down just then does not.
    """

    def __init__(self, fleet: ChaosFleet) -> None:
        self._fleet = fleet
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.counts: collections.Counter[str] = collections.Counter()

    def rage(self, faults: Iterable[Fault], tell: Callable[[int], None]) -> None:
        """All faults; `tell` is told their number as they come."""
        for number, fault in enumerate(faults, 1):
            self._wait(fault.after_s)
            if self._strike(fault):
                self.counts[fault.kind] += 1
            tell(number)
        while self._undo:
            self._wait(LOOK_S)

    def _wait(self, seconds: float) -> None:
        """Lets time pass, in which faults end and programs are started again."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            while self._undo and self._undo[0][0] <= now:
                heapq.heappop(self._undo)[2]()
            self._fleet.look_after()
            if now >= until:
                return
            time.sleep(min(LOOK_S, until - now))

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._order), do))

    def _strike(self, fault: Fault) -> bool:
        """Whether there was somebody to be struck."""
        fleet, name = self._fleet, fault.target
        if not fleet.is_running(name):
            return False
        if fault.kind == "kill":
            fleet.kill_for(name, fault.lasts_s)
        elif fault.kind == "wipe":
            fleet.wipe_broker(fault.lasts_s)
        elif fault.kind == "stop":
            fleet.stop_for_now(name)
            self._later(fault.lasts_s, lambda: fleet.go_on(name))
        elif fault.kind == "disk":
            fleet.take_room(name)
            self._later(fault.lasts_s, lambda: fleet.take_room(name, UNLIMITED))
        elif fault.kind == "clock":
            fleet.set_clock(name, fault.size)
        else:
            self._disturb(fault)
        return True

    def _disturb(self, fault: Fault) -> None:
        """The network."""
        link = self._fleet.links[fault.target]
        if fault.kind == "cut":
            link.cut()
        elif fault.kind == "truncate":
            link.truncate(int(fault.size))
        elif fault.kind == "delay":
            link.delay_s = fault.size
            self._later(fault.lasts_s, link.heal)
        elif fault.kind == "swallow":
            link.swallow()
            self._later(fault.lasts_s, link.heal)
