"""An aggregator that says what a test tells it to, over a real control socket, and the screens attached to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from aggregator.ledger.records import Operation
from aggregator.records import AggregatorStatus, NodeView, ProofView, Released, Taken
from aggregator.tui.app import FleetApp
from fieldfold.control.server import ControlServer
from fieldfold.wire.messages import NodePresence
from tests.terminal.screens import AT, Screens, shown

STATES = ("learning", "waiting for a newer version", "following", "offline", "needs attention", "learning")


def node(number: int, **changes: Any) -> NodeView:
    """A gateway like many, in one of a few states."""
    state = STATES[number % len(STATES)]
    detail = "there is no column 26" if state == "needs attention" else ""
    name = f"press-{number:02d}"
    view = NodeView(
        node=name,
        presence=NodePresence(
            node=name, state=state, detail=detail, version=412 - number % 3, loss=0.2, score=14.1, metric="rmse"
        ),
        accepted=40 - number % 20,
        rejected=number % 4,
        bytes_on_wire=14_200 * (40 - number % 20),
        last_update_age_s=60.0 * (number % 7) + 3,
        last_reason="too stale: against version 12" if number % 4 else "",
        pace_s=60.0 + number % 5,
        excluded_by="",
        staleness=number % 4,
        norm=0.2 + 0.05 * (number % 5),
    )
    return msgspec.structs.replace(view, **changes)


MILL = node(
    48,
    node="mill-05",
    accepted=7,
    rejected=612,
    last_reason="the delta holds NaN or infinity",
    presence=NodePresence(node="mill-05", state="learning", version=412),
    pace_s=4.0,
)
FOLDING = AggregatorStatus(
    state="folding",
    detail="",
    federation="plant-south",
    connected=True,
    link="MQTT 5",
    term=3,
    task="turbofan",
    task_digest="0123456789abcdef" * 4,
    version=412,
    score=13.9,
    score_version=412,
    score_median=14.1,
    score_worst_decile=18.7,
    classes=(),
    worst_class=None,
    better="lower",
    evaluation_trouble="",
    metric="RMSE",
    statistics_from=48,
    nodes_online=10,
    nodes_known=13,
    accepted=1204,
    rejected=630,
    malformed=0,
    reasons={"invalid": 612, "stale": 18},
    staleness_median=2.0,
    staleness_max=11,
    bytes_received=17_000_000,
    bytes_published=3_000_000,
    float32_bytes=1_310_000_000,
    backup=None,
    proof=None,
    nodes=(MILL, *(node(number) for number in range(12))),
    uptime_s=4 * 3600.0,
)


class ScriptedFleet:
    """Says `now`, and notes what it is commanded, by whom."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, FOLDING
        self.commanded: list[tuple[str, dict[str, Any]]] = []
        self.versions = [
            Released(version, AT - 60 * (412 - version), 13.7 + 40 / (version - 360), 6, 14_200)
            for version in range(373, 413)
        ]
        self.decisions = [
            Taken(
                1834 - number,
                AT - 9 * number,
                "mill-05" if number % 3 == 0 else f"press-{number % 12:02d}",
                900 - number,
                411,
                number % 4,
                0.31,
                200,
                14_200,
                number % 3 != 0,
                "invalid" if number % 3 == 0 else "",
                "the delta holds NaN or infinity" if number % 3 == 0 else "",
            )
            for number in range(60)
        ]
        self.operations = [Operation(1, AT - 90, "root", "publish task", "turbofan", "task turbofan replaces none")]

    def say(self, **changes: Any) -> None:
        self.now = msgspec.structs.replace(self.now, **changes)

    def _do(self, name: str, then: Callable[..., object] = lambda **_: None) -> Callable[..., str]:
        def command(asks: str, **arguments: Any) -> str:
            self.commanded.append((name, arguments))
            then(**arguments)
            self.operations.insert(0, Operation(len(self.operations) + 1, AT, asks, name, "", f"{name} is done"))
            return f"{name} is done"

        return command

    def _exclude(self, node: str, by: str) -> None:
        nodes = [
            msgspec.structs.replace(each, excluded_by=by) if each.node == node else each for each in self.now.nodes
        ]
        self.say(nodes=tuple(nodes))

    @contextmanager
    def up(self) -> Iterator[None]:
        """Answers at its socket meanwhile; may be started again afterwards."""

        def paused(state: str) -> Callable[..., None]:
            return lambda node="": None if node else self.say(state=state)

        views: dict[str, Callable[..., Any]] = {
            "versions": lambda: self.versions,
            "voices": lambda: {each.node: 1 / len(self.now.nodes) for each in self.now.nodes},
            "decisions": lambda node="": [each for each in self.decisions if not node or each.node == node],
            "rejections": lambda: [each for each in self.decisions if not each.accepted],
            "operations": lambda: self.operations,
        }
        commands = {
            "pause": self._do("pause", paused("paused")),
            "resume": self._do("resume", paused("folding")),
            "release": self._do("release", lambda: self.say(version=413)),
            "roll_back": self._do("roll_back"),
            "exclude": self._do("exclude", lambda node: self._exclude(node, "root")),
            "readmit": self._do("readmit", lambda node: self._exclude(node, "")),
            "verify": self._do("verify", lambda: self.say(proof=ProofView("running", 600, 1204))),
        }
        server = ControlServer(self.path, lambda: self.now, commands, views)
        try:
            yield
        finally:
            server.stop()


@asynccontextmanager
async def attached(path: Path, size: tuple[int, int] = (80, 24), **settings: Any) -> AsyncIterator[Screens[FleetApp]]:
    """The app in a terminal of `size`, attached to whatever answers at `path`."""
    async with shown(FleetApp(path, every_s=0.05, clock=lambda: AT, **settings), size) as screens:
        yield screens
