"""A daemon that says what a test tells it to, over a real control socket, and the screens attached to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from textual.pilot import Pilot
from textual.screen import Screen

from fieldfold.control.recent import Recent, Slice
from fieldfold.control.server import ControlServer
from fieldfold.logs import Entry
from node_app.records import Adoption, Carried, Decided, Drift, Run, Waiting
from node_app.status import NodeStatus
from node_app.tui.app import NodeApp

AT = 1_763_900_000.0
"""Seconds since 1970: when everything in a script happened."""
PATIENCE_S = 8.0
REPORT: dict[str, Any] = {
    "num_files": 1,
    "files": [{"name": "train_FD001.txt.gz", "rows": 575, "missing_cells": 0, "bad_cells": 0}],
    "rows": 575,
    "series": 3,
    "missing_cells": 4,
    "bad_cells": 0,
    "parts": {
        "train": {"series": 2, "rows": 400, "windows": 342},
        "validation": {"series": 1, "rows": 175, "windows": 146},
        "test": {"series": 0, "rows": 0, "windows": 0},
    },
    "dropped_rows": {},
    "dropped_windows": {"shorter than a window": 2},
    "targets": [
        {
            "name": "remaining life",
            "unit": "cycles",
            "classes": {},
            "minimum": 0.0,
            "mean": 80.0,
            "maximum": 125.0,
            "edges": [0.0, 25.0, 50.0, 75.0, 100.0, 125.0],
            "counts": [75, 75, 75, 75, 188],
        }
    ],
    "features": [
        {"name": "s2", "unit": "K", "missing": 0, "minimum": 641.2, "mean": 642.7, "maximum": 644.5},
        {"name": "s3", "unit": "", "missing": 4, "minimum": 1571.0, "mean": 1590.5, "maximum": 1616.9},
        {"name": "gate", "unit": "", "missing": 0, "minimum": None, "mean": None, "maximum": None},
    ],
}
LEARNING = NodeStatus(
    node="press-07",
    federation="plant",
    state="learning",
    detail="",
    connected=True,
    link="MQTT 5",
    broker="mqtts://broker.plant:8883",
    link_up_s=3 * 3600.0,
    round_trip_s=0.023,
    task="turbofan",
    task_digest="0123456789abcdef" * 4,
    runtime="onnx",
    device="cpu",
    runtime_reason="no CUDA device here",
    version=412,
    newest_version=413,
    served_version=411,
    metric="rmse",
    global_score=14.62,
    served_score=14.1,
    loss=0.2143,
    step=180,
    steps=400,
    steps_per_s=1.5,
    next_run_s=None,
    accepted=41,
    rejected=1,
    last_receipt="update 42 accepted",
    outbox=0,
    last_update_bytes=14_200,
    bytes_up=1_300_000,
    bytes_down=900_000,
    float32_up=90_000_000,
    float32_down=41_000_000,
    reconnects=2,
    memory_bytes=71_300_000,
    cpu_s=0.0,
    temperature_c=52.4,
    uptime_s=4 * 3600.0,
    log_end=0,
    runs_end=0,
    adoptions_end=0,
    data=REPORT,
)


class ScriptedDaemon:
    """Says `status`, keeps `log`, `runs` and `adoptions`, and notes what it is commanded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = LEARNING
        self.commanded: list[str] = []
        self.decisions = tuple(
            Decided(42 - n, n != 3, "" if n != 3 else "the update is not finite", n % 4, 14_200, AT - 60 * n)
            for n in range(30)
        )
        self.outbox: tuple[Carried, ...] = ()
        self.log: Recent[Entry] = Recent(100)
        self.runs: Recent[Run] = Recent(100)
        self.adoptions: Recent[Adoption] = Recent(100)
        for n in range(40):
            self.runs.add(Run(AT - 60 * (40 - n), 372 + n, 0.2 + 0.8 / (n + 1), 400, 1.7, 14_200))
            self.adoptions.add(Adoption(AT - 60 * (40 - n), 373 + n, 14 + 20 / (n + 1), min(373 + n, 411)))
        self.log.add(Entry(AT - 10, "info", "connected to broker.plant"))
        self.log.add(Entry(AT, "warning", "update 39 rejected: the update is not finite"))

    def say(self, **changes: Any) -> None:
        self.now = msgspec.structs.replace(self.now, **changes)

    def status(self) -> NodeStatus:
        ends = {"log_end": self.log.end, "runs_end": self.runs.end, "adoptions_end": self.adoptions.end}
        return msgspec.structs.replace(self.now, **ends)

    def _do(self, name: str, state: str) -> Callable[[], str]:
        def command() -> str:
            self.commanded.append(name)
            self.say(state=state)
            return state

        return command

    @contextmanager
    def up(self) -> Iterator[None]:
        """Answers at its socket meanwhile; may be started again afterwards."""
        views: dict[str, Callable[..., Any]] = {
            "history": lambda: self.decisions,
            "outbox": lambda: self.outbox,
            "drift": lambda: (Drift("s2", 642.7, 0.5, 642.6, 0.5), Drift("s3", 1590.5, 6.0, 1570.0, 6.0)),
            "log": lambda after=0: self.log.after(after),
            "runs": lambda after=0: self.runs.after(after),
            "adoptions": lambda after=0: self.adoptions.after(after),
        }
        commands = {"pause": self._do("pause", "paused"), "resume": self._do("resume", "learning")}
        server = ControlServer(self.path, self.status, commands, views)
        try:
            yield
        finally:
            server.stop()


def waiting(sequence: int, *, has_left: bool, chunks: int = 0) -> Carried:
    return Carried(Waiting(sequence, "", 411, has_left, 14_200, AT), chunks, 3)


class Screens:
    """The app under a pilot: presses keys, and waits for what is to be read."""

    def __init__(self, app: NodeApp, pilot: Pilot[None]) -> None:
        self.app, self._pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()

    async def click(self, column: int, row: int) -> None:
        await self._pilot.click(offset=(column, row))
        await self._pilot.pause()

    async def resize(self, columns: int, rows: int) -> None:
        await self._pilot.resize_terminal(columns, rows)
        await self._pilot.pause()

    async def pass_by(self, looks: int) -> None:
        """Lets so many snapshots arrive."""
        until = self.app.heard + looks
        deadline = time.monotonic() + PATIENCE_S
        while self.app.heard < until:
            assert time.monotonic() < deadline, "the daemon says nothing"
            await self._pilot.pause(0.02)

    async def settled(self) -> str:
        """What stands there once the daemon has been heard twice more."""
        await self.pass_by(2)
        return self.text

    @property
    def shown(self) -> Screen[Any]:
        """The screen in front, a question or a text to read among them."""
        return self.app.screen

    @property
    def room(self) -> str:
        """The screen that is open."""
        assert self.app.room is not None
        return self.app.room.ROOM

    @property
    def text(self) -> str:
        """What stands on the screen, as somebody reads it."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def reads(self, *words: str) -> str:
        """Waits until all the words stand there."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(word in self.text for word in words):
            assert time.monotonic() < deadline, f"{words} did not come up:\n{self.text}"
            await self._pilot.pause(0.02)
        return self.text

    async def reads_no(self, word: str) -> str:
        """Waits until a word has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while word in self.text:
            assert time.monotonic() < deadline, f"{word!r} did not go:\n{self.text}"
            await self._pilot.pause(0.02)
        return self.text


@asynccontextmanager
async def attached(path: Path, size: tuple[int, int] = (80, 24), **settings: Any) -> AsyncIterator[Screens]:
    """The app in a terminal of `size`, attached to whatever answers at `path`."""
    app = NodeApp(path, every_s=0.05, clock=lambda: AT, **settings)
    app.NOTIFICATION_TIMEOUT = PATIENCE_S  # type: ignore[misc]
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Screens(app, pilot)


def drive(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test that presses keys."""
    asyncio.run(work)


__all__ = ["AT", "LEARNING", "REPORT", "Screens", "ScriptedDaemon", "Slice", "attached", "drive", "waiting"]
