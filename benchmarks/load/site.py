"""A real Mosquitto and a real aggregator as processes on loopback, and what they use of the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from benchmarks.load.parties import Parties
from benchmarks.load.task import write_bundle
from broker_config.mosquitto import find_mosquitto
from examples.turbofan.fleet import free_port, listens
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError, FieldfoldError
from fieldfold.task.bundle import Bundle

FEDERATION = "load"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
START_ATTEMPTS = 3

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location {folder}/
autosave_on_changes false
autosave_interval 15
max_queued_messages 100000
max_queued_bytes 536870912
max_inflight_messages 64
max_packet_size 1114112
sys_interval 1
set_tcp_nodelay true
log_type error
log_type warning
"""
"""As `fieldfold broker init` writes it, without TLS and access rules: both would be the broker's work, not ours."""

AGGREGATOR = """\
federation = "load"
state_dir = "state"
control_socket = "{socket}"
task = "{task}"
{settings}
[broker]
{broker}messages_per_s = 10000
bytes_per_s = 1_000_000_000
"""


class Site:
    """Both programs, in a folder of their own that is emptied first; use as a context manager.

    Args:
        settings: further tables of aggregator.toml.
    """

    def __init__(self, folder: Path, num_params: int, settings: str = "") -> None:
        self.folder = folder.resolve()
        self.num_params, self._settings = num_params, settings
        self._sockets = Path(tempfile.mkdtemp(prefix="fieldfold-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "broker").mkdir(parents=True)
        self.parties = Parties(self.folder / "identities")
        self.bundle: Bundle = write_bundle(self.num_params, self.folder / "task.bundle")
        try:
            self._start_broker()
            self.start_aggregator()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends both."""
        for name in ("aggregator", "broker"):
            self.end(name)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _start_broker(self) -> None:
        program = find_mosquitto()
        if program is None:
            raise FieldfoldError("Mosquitto is not installed", "run packaging/install-test-programs")
        for attempts_left in reversed(range(START_ATTEMPTS)):
            self.port = free_port()
            try:
                self._try_broker(program)
            except FieldfoldError:
                # Somebody else has taken the port since it was free.
                if not attempts_left:
                    raise
            else:
                return

    def _try_broker(self, program: Path) -> None:
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text(MOSQUITTO.format(port=self.port, folder=self.folder / "broker"), encoding="utf-8")
        self._spawn("broker", str(program), "-c", str(configuration))
        self._wait("broker", lambda: listens(self.port))

    def start_aggregator(self) -> None:
        """Starts it, again if need be; returns when it folds."""
        text = AGGREGATOR.format(
            socket=self._sockets / "aggregator.sock",
            task=self.folder / "task.bundle",
            settings=self._settings,
            broker=self.parties.table("aggregator", f"mqtt://127.0.0.1:{self.port}"),
        )
        path = self.folder / "aggregator.toml"
        path.write_text(text, encoding="utf-8")
        command = (sys.executable, "-m", "fieldfold", "aggregator", "run", "--config", str(path))
        self._spawn("aggregator", *command, "--log-level", "warning")
        self._wait("aggregator", self._folds)

    def _folds(self) -> bool:
        status = self.status()
        return status is not None and status["connected"] and status["state"] == "folding"

    def status(self) -> Any:
        """The aggregator's, None while it does not answer."""
        try:
            with ControlClient(self._sockets / "aggregator.sock", timeout_s=START_TIMEOUT_S) as client:
                return client.status()
        except ControlError:
            return None

    def pid(self, name: str) -> int:
        """The process of a program."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Ends a program with kill -9."""
        self._processes[name].kill()
        self._processes[name].wait()

    def end(self, name: str) -> None:
        """Ends a program as an operator would."""
        process = self._processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
            return
        process.kill()
        process.wait()

    def wait(self, name: str) -> int:
        """The exit status of a program that is about to end."""
        return self._processes[name].wait(END_TIMEOUT_S)

    def log(self, name: str) -> str:
        """What a program has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not is_there():
            if self._processes[name].poll() is not None or time.monotonic() > deadline_s:
                raise FieldfoldError(f"the {name} did not come up: {self.log(name).strip()[-500:]}")
            time.sleep(0.05)
