"""A daemon that says what a test tells it to, over a real control socket, and the screens attached to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fieldfold.control.recent import Recent
from fieldfold.control.server import ControlServer
from fieldfold.logs import Entry
from node_app.day import Counts
from node_app.records import Adoption, Carried, Decided, Drift, Run, Sample, Waiting
from node_app.status import NodeStatus
from node_app.tui.app import NodeApp
from tests.terminal.screens import AT, Screens, shown

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
    former_version=408,
    pinned=False,
    metric="rmse",
    global_score=14.62,
    served_score=14.1,
    served_personal=False,
    personal_score=None,
    loss=0.2143,
    step=180,
    steps=400,
    steps_per_s=1.5,
    next_run_s=None,
    accepted=41,
    rejected=1,
    last_receipt="update 42 accepted",
    outbox=0,
    fetching="",
    today=Counts(accepted=31, rejected=1, bytes_up=1_300_000, bytes_down=900_000, float32=131_000_000, reconnects=2),
    today_since=AT - 4 * 3600.0,
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
            self.runs.add(Run(AT - 60 * (40 - n), 372 + n, 0.2 + 0.8 / (n + 1), 400, 1.7, 14_200, 3 + n, 0.4))
            self.adoptions.add(Adoption(AT - 60 * (40 - n), 373 + n, 14 + 20 / (n + 1), min(373 + n, 411)))
        self.log.add(Entry(AT - 10, "info", "connected to broker.plant"))
        self.log.add(Entry(AT, "warning", "update 39 rejected: the update is not finite"))

    def say(self, **changes: Any) -> None:
        self.now = msgspec.structs.replace(self.now, **changes)

    def status(self) -> NodeStatus:
        ends = {"log_end": self.log.end, "runs_end": self.runs.end, "adoptions_end": self.adoptions.end}
        return msgspec.structs.replace(self.now, **ends)

    def _do(self, name: str, **then: Any) -> Callable[[str], str]:
        def command(asks: str) -> str:
            assert asks, "the daemon is told who it was"
            self.commanded.append(name)
            self.say(**then)
            return f"{name} is done"

        return command

    @contextmanager
    def up(self) -> Iterator[None]:
        """Answers at its socket meanwhile; may be started again afterwards."""
        views: dict[str, Callable[..., Any]] = {
            "history": lambda: self.decisions,
            "outbox": lambda: self.outbox,
            "drift": lambda: (Drift("s2", 642.7, 0.5, 642.6, 0.5), Drift("s3", 1590.5, 6.0, 1570.0, 6.0)),
            "sample": lambda: (Sample("s2", tuple(float(n % 7) for n in range(30))), Sample("s3", (None, 1.0, 2.0))),
            "log": lambda after=0: self.log.after(after),
            "runs": lambda after=0: self.runs.after(after),
            "adoptions": lambda after=0: self.adoptions.after(after),
        }
        commands = {
            "pause": self._do("pause", state="paused"),
            "resume": self._do("resume", state="learning"),
            "pin": self._do("pin", pinned=True),
            "unpin": self._do("unpin", pinned=False),
            "roll_back": self._do("roll_back", pinned=True, served_version=408),
            "export": self._do("export"),
        }
        server = ControlServer(self.path, self.status, commands, views)
        try:
            yield
        finally:
            server.stop()


def waiting(sequence: int, *, has_left: bool, chunks: int = 0) -> Carried:
    return Carried(Waiting(sequence, "", 411, has_left, 14_200, AT), chunks, 3)


@asynccontextmanager
async def attached(path: Path, size: tuple[int, int] = (80, 24), **settings: Any) -> AsyncIterator[Screens[NodeApp]]:
    """The app in a terminal of `size`, attached to whatever answers at `path`."""
    async with shown(NodeApp(path, every_s=0.05, clock=lambda: AT, **settings), size) as screens:
        yield screens
