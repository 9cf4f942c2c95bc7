"""An aggregator as a process of its own, beside a real broker."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError, LeaseError
from tests.aggregator.tiny import FEDERATION, bundle
from tests.identities import broker_table

PATIENCE_S = 60.0


class Aggregator:
    """One as a process, that works on a task without normalisation.

    Args:
        folder: where its configuration is written.
        state: its state folder, as the configuration names it.
        within: what the command begins with.
    """

    def __init__(
        self, folder: Path, url: str, *options: str, state: str = "state", within: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.bundle").write_bytes(bundle("raw", "none").data)
        self.config = folder / "aggregator.toml"
        self.config.write_text(
            f'federation = "{FEDERATION}"\nstate_dir = "{state}"\ncontrol_socket = "control.sock"\n'
            f'task = "task.bundle"\n[broker]\n{broker_table("aggregator", url)}[fold]\nmethod = "fedasync"\n',
            encoding="utf-8",
        )
        self.folder, self.socket = folder, folder / "control.sock"
        command = [sys.executable, "-m", "fieldfold", "aggregator", "run", "--config", str(self.config), *options]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*within, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> Any:
        try:
            with ControlClient(self.socket, timeout_s=5.0) as client:
                return client.status()
        except ControlError:
            return None

    def is_at_work(self) -> None:
        """Waits until it keeps the federation."""
        self._wait(lambda: (self.status() or {}).get("term"))

    def has_accepted(self, count: int) -> None:
        self._wait(lambda: (self.status() or {}).get("accepted") == count)

    def _wait(self, condition: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline_s, self.log
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, as a service manager ends it."""
        self._process.terminate()
        assert self._process.wait(PATIENCE_S) == 0, self.log

    def ends_saying(self, words: str) -> None:
        """Waits for the end that says that another one keeps the federation."""
        assert self._process.wait(PATIENCE_S) == LeaseError.exit_code, self.log
        assert words in self.log

    def sequences(self) -> list[int]:
        """What it holds, once it has ended."""
        with closing(sqlite3.connect(self.folder / "state/ledger.sqlite")) as ledger:
            return [number for (number,) in ledger.execute("SELECT sequence FROM contribution ORDER BY id")]
