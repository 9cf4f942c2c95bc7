"""The screens in a real tmux, attached to a real daemon at a real Mosquitto, which is killed under them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file

NODE = "gateway-01"
PATIENCE_S = 120.0


def until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


class Tmux:
    """A terminal of 80 by 24 with one program in it, on a tmux server of its own."""

    def __init__(self, socket: Path, command: str) -> None:
        program = shutil.which("tmux")
        if program is None:
            pytest.fail("tmux is not installed: `make test` installs it (apt install tmux)", pytrace=False)
        self._tmux = [program, "-S", str(socket), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", "80", "-y", "24", command)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=False, timeout=10)
        return done.stdout

    @property
    def is_there(self) -> bool:
        return bool(self._run("list-sessions"))

    def press(self, key: str) -> None:
        self._run("send-keys", key)

    def reads(self, *words: str) -> str:
        """Waits until all the words stand on the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(word in (shown := self._run("capture-pane", "-p")) for word in words):
            assert time.monotonic() < deadline, f"{words} did not come up:\n{shown}"
            time.sleep(0.1)
        return shown

    def end(self) -> None:
        self._run("kill-server")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LoopFleet]:
    with LoopFleet(tmp_path / "fleet", bundle_file(), {NODE: (3, 5, 8, 13)}, {NODE: 40.0}) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        fleet.start_node(NODE)
        until(lambda: fleet.node_status(NODE) is not None, "the daemon does not answer")
        yield fleet


@pytest.mark.timeout(400)
def test_a_day_of_an_operator(fleet: LoopFleet, tmp_path: Path) -> None:
    command = f"{sys.executable} -m fieldfold node --socket {fleet.socket(NODE)}"
    tmux = Tmux(tmp_path / "tmux", command)
    try:
        said = tmux.reads(NODE, "link ok", " accepted, 0 rejected", "#", "Needs you", "steps/s")
        assert "localhost" in said
        tmux.press("d")
        tmux.reads("windows:", "remaining life")
        tmux.press("t")
        tmux.reads("decision", "accepted", "runs; last")

        fleet.kill(NODE)
        assert "accepted" in tmux.reads("NOT REACHED"), "what was heard last stays"
        fleet.start_node(NODE)
        tmux.reads("link ok", "accepted")

        fleet.kill("broker")
        tmux.press("n")
        tmux.reads("link down")
        tmux.press("p")
        tmux.reads("Pause training on gateway-01?")
        tmux.press("y")
        tmux.reads("PAUSED", "p Go on")
        assert fleet.node_status(NODE)["state"] == "paused"
        tmux.press("q")
        until(lambda: not tmux.is_there, "q does not leave")
        assert fleet.node_status(NODE)["state"] == "paused", "leaving changes nothing"
    finally:
        tmux.end()
