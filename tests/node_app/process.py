"""A node as a process of its own, that a service manager watches over: a real socket hears what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.node_app.turbofan import data_table

START = "from fieldfold.cli.main import main; main()"
PATIENCE_S = 60.0
ENDS_WITHIN_S = 5.0 + 5.0
"""What is promised, and as much again for a machine that does other things besides."""


class NodeProcess:
    """`fieldfold node run` in `folder`; `prelude` is run in the process before that.

    Args:
        broker: the lines of the `[broker]` table.
        training: those of `[training]`.
    """

    def __init__(
        self, folder: Path, broker: str, *, training: str = "", prelude: str = "", watchdog_s: float = 0.0
    ) -> None:
        self._folder = folder
        config = folder / "node.toml"
        config.write_text(
            'name = "press-07"\nfederation = "plant"\nstate_dir = "state"\ncontrol_socket = "node.sock"\n'
            f"[broker]\n{broker}\n{data_table(3, 5, 8)}\n[training]\n{training}\n",
            encoding="utf-8",
        )
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self._notify.bind(str(address))
        environment = {**os.environ, "NOTIFY_SOCKET": str(address), "OMP_NUM_THREADS": "1"}
        if watchdog_s:
            environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self._log = (folder / "log").open("ab")
        command = [sys.executable, "-c", f"{prelude}\n{START}", "node", "run", "--config", str(config)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._notify.close()
        self._log.close()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8")

    def hears(self, word: str) -> None:
        """Waits until the process says it to its service manager."""
        self._notify.settimeout(PATIENCE_S)
        try:
            while self._notify.recv(4096).decode() != word:
                pass
        except TimeoutError:
            raise AssertionError(f"it did not say {word}; its log: {self.log}") from None

    def is_silent(self, for_s: float) -> bool:
        """Whether it says nothing for a while."""
        self._notify.settimeout(for_s)
        try:
            self._notify.recv(4096)
        except TimeoutError:
            return True
        return False

    def says(self, words: str) -> None:
        """Waits for words in its log."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.log:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ends(self) -> int:
        """Asks it to end; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        try:
            return self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; its log: {self.log}") from None
