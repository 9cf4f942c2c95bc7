"""From nothing to a secured federation by the commands that README.md shows, counted and run as a reader would."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHOWN = README.partition("For a plant of your own")[2].partition("Then:")[0]
COMMANDS = re.findall(r"^    (fieldfold .*)$", SHOWN, re.MULTILINE)
CODE = re.compile(r"^On (\S+), within 24h: fieldfold node enroll (\S+) --run$", re.MULTILINE)
TIMEOUT_S = 60.0


class Reader:
    """Types what the README shows, each program in a terminal of its own; only places and the port are his."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.typed: list[str] = []
        self._terminals: list[subprocess.Popen[bytes]] = []

    def types(self, command: str, machine: str = "broker") -> subprocess.Popen[bytes]:
        """Starts a command on one of the machines."""
        self.typed.append(command)
        folder = self.place / machine
        folder.mkdir(exist_ok=True)
        words = shlex.split(command.replace("/etc/fieldfold", str(folder)).replace("broker.plant", "localhost"))
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder / "run"), "PYTHONUNBUFFERED": "1"}
        with (folder / f"said-{len(self.typed)}").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
            )
        self._terminals.append(process)
        return process

    def finishes(self, command: str, machine: str = "broker") -> str:
        """Types a command that ends by itself, and reads what it says."""
        process = self.types(command, machine)
        code = process.wait(TIMEOUT_S)
        said = (self.place / machine / f"said-{len(self.typed)}").read_text()
        assert code == 0, said
        return said

    def leaves(self) -> None:
        """Ctrl-C in every terminal, the last one first."""
        for process in reversed(self._terminals):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(TIMEOUT_S)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.leaves()


def fleet(reader: Reader) -> dict[str, Any]:
    """What the aggregator says of itself; nothing before it is up."""
    words = [sys.executable, "-m", "fieldfold", "aggregator", "status", "--json"]
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(reader.place / "broker" / "run")}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    status: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"nodes_online": 0, "link": ""}
    return status


def joins(reader: Reader, name: str, code: str) -> None:
    """The fourth command, on a gateway that has some data."""
    data = reader.place / name / "data"
    data.mkdir(parents=True)
    (data / "shift.csv").write_text("force,wear\n1,2\n")
    reader.types(COMMANDS[3].replace("CODE", code), name)


def test_four_commands_and_one_more_for_each_further_gateway(reader: Reader) -> None:
    assert len(COMMANDS) == 4

    said = reader.finishes(f"{COMMANDS[0]} --port {free_port()}")
    reader.types(COMMANDS[1])
    reader.types(COMMANDS[2])
    codes = dict(CODE.findall(said))
    for name, code in codes.items():
        joins(reader, name, code)

    gateways = len(codes)
    assert gateways == 2
    deadline = time.monotonic() + TIMEOUT_S
    while (seen := fleet(reader))["nodes_online"] < gateways:
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    assert len(reader.typed) == 4 + (gateways - 1)
    assert seen["federation"] == "plant"
    assert seen["link"].startswith("MQTT")
    assert "mqtts://localhost" in (reader.place / "press-08" / "node.toml").read_text()
    signs = sorted(path.relative_to(reader.place).parts[0] for path in reader.place.rglob("signing.key"))
    assert signs == ["broker", "press-07", "press-08"]
    assert len(list(reader.place.glob("press-*/**/aggregator.pin"))) == gateways

    for command, machine in (("fieldfold broker doctor broker", "broker"), ("fieldfold node doctor", "press-07")):
        assert "WRONG" not in reader.finishes(command, machine)
