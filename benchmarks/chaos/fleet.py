"""A fleet whose every party reaches the broker through a bad link of its own, and has a clock of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from benchmarks.chaos.network import BadLink
from benchmarks.chaos.shim import CLOCK
from examples.turbofan.fleet import Fleet

START_AGAIN_S = 1.0
"""How long a service manager waits with a program that ended by itself; systemd is told to wait 5 s."""
NEEDS_SOMEBODY = {2, 8}
"""Exit codes after which a service manager does not start a program again."""
MESSAGE_BYTES = 2048
"""So small that an update comes in several pieces."""
UNLIMITED = resource.RLIM_INFINITY
NO_ROOM_BYTES = 4096
"""No file may be written behind this, and none of ours is so small."""


class Ending(msgspec.Struct, frozen=True):
    """A program that ended though nobody killed it."""

    name: str
    code: int
    last_words: str


class ChaosFleet(Fleet):
    """Starts every program as a service manager would: again, whenever it has ended.

    Attributes:
        endings: of programs that ended by themselves.
    """

    def __init__(self, folder: Path, bundle: Path, engines: Mapping[str, tuple[int, ...]], **settings: Any) -> None:
        super().__init__(folder, bundle, engines, **settings)
        self.links: dict[str, BadLink] = {}
        self.endings: list[Ending] = []
        self._due: dict[str, float] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        super().__enter__()
        for name in (*self.engines, "aggregator"):
            self.links[name] = self._open.enter_context(BadLink(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        super().__exit__()
        self._open.close()

    def begin(self) -> None:
        """Starts everything."""
        nodes = [argument for name in self.engines for argument in ("--node", name)]
        self._complete("broker", "init", str(self.folder / "broker"), "--port", str(self._port), *nodes)
        self.start("broker")
        self._wait("broker", self._broker_listens)
        self.start_aggregator()
        for name in self.engines:
            self.start_node(name)

    def start(self, name: str) -> None:
        """Starts a program, and does not wait for it."""
        if name == "broker":
            self._spawn("broker", "broker", "run", str(self.folder / "broker"))
        else:
            program = "aggregator" if name == "aggregator" else "node"
            config = self.folder / name / f"{program}.toml"
            self._spawn(name, program, "run", "--config", str(config), "--log-level", "info")

    def _broker_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    # -- what is done to it ------------------------------------------------------------------------------------------

    def is_running(self, name: str) -> bool:
        """Whether the program runs; a stopped one does too."""
        return self._processes[name].poll() is None

    def kill_for(self, name: str, seconds: float) -> None:
        """Kill -9; it is started again after so many seconds."""
        self.kill(name)
        self._due[name] = time.monotonic() + seconds

    def wipe_broker(self, seconds: float) -> None:
        """Kill -9 of the broker; when it is back it knows no session and no retained message."""
        self.kill_for("broker", seconds)
        for file in (self.folder / "broker" / "data").iterdir():
            file.unlink()

    def stop_for_now(self, name: str) -> None:
        """SIGSTOP."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        if self.is_running(name):
            os.kill(self.pid(name), signal.SIGCONT)

    def take_room(self, name: str, limit: int = NO_ROOM_BYTES) -> None:
        """The disk takes nothing more from a program; with UNLIMITED it does again."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.pid(name), resource.RLIMIT_FSIZE, (limit, UNLIMITED))

    def set_clock(self, name: str, ahead_s: float) -> None:
        """The program's wall clock jumps."""
        self._clock(name).write_text(f"{ahead_s}", encoding="ascii")

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def heal(self) -> None:
        """Undoes all that goes on, and starts what is down."""
        for link in self.links.values():
            link.heal()
        for name in self._processes:
            if self.is_running(name):
                self.go_on(name)
                self.take_room(name, UNLIMITED)

    def look_after(self) -> None:
        """Starts again what is down: what was killed in its time, what ended by itself after a while."""
        now = time.monotonic()
        for name, process in self._processes.items():
            code = process.poll()
            if code is None:
                continue
            if name not in self._due:
                self.endings.append(Ending(name, code, self.log(name).strip()[-300:]))
                self._due[name] = now + START_AGAIN_S
            if now >= self._due[name]:
                del self._due[name]
                self.start(name)

    # -- how it is ---------------------------------------------------------------------------------------------------

    def troubles(self) -> list[str]:
        """Who does not do what it should, and what it says; empty when all is well."""
        aggregator = self.aggregator_status()
        said = (
            [] if aggregator and aggregator["term"] and aggregator["state"] == "folding" else [f"{aggregator}"[:500]]
        )
        for name in self.engines:
            status = self.node_status(name)
            if not (status and status["connected"] and status["state"] != "needs attention"):
                said.append(f"{name}: {status}"[:500])
        return said

    # -- how it is started -------------------------------------------------------------------------------------------

    def _broker_table(self, name: str) -> str:
        table = super()._broker_table(name).replace(str(self._port), str(self.links[name].port))
        return f"{table}\nmessage_bytes = {MESSAGE_BYTES}"

    def _spawn(self, name: str, *arguments: str, module: str = "benchmarks.chaos.shim", **environment: str) -> None:
        super()._spawn(name, *arguments, module=module, **{CLOCK: str(self._clock(name)), **environment})
