"""What docs/RELIABILITY.md tells an operator to do, done: a move, a backup, a dead disk."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fieldfold.errors import LeaseError
from fieldfold.link.mqtt import MqttLink
from fieldfold.wire.topics import Topics
from tests.aggregator.process import Aggregator
from tests.aggregator.tiny import FEDERATION, chunks, update
from tests.identities import credential
from tests.link.brokers import PlainMosquitto, plain_link, until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "RELIABILITY.md"
TOPICS = Topics(FEDERATION)


def commands(beginning: str) -> list[str]:
    """The lines of the code block that begins so."""
    blocks = re.findall(r"^```\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if block.startswith(beginning)]
    return str(block).splitlines()


class Machine:
    """A machine whose files lie below a folder, with a service manager that knows one service."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self._url = root, url
        self.service: Aggregator | None = None

    @property
    def ledger(self) -> Path:
        return self.root / "var/lib/fieldfold/aggregator/ledger.sqlite"

    def start(self) -> Aggregator:
        state = "../../../var/lib/fieldfold/aggregator"
        self.service = Aggregator(self.root / "etc/fieldfold/broker", self._url, state=state)
        return self.service

    def stop(self) -> None:
        if self.service is not None:
            self.service.stop()

    def does(self, command: str) -> str:
        """Runs a line as it stands in the document, on this machine's files; what it says."""
        if command.startswith("systemctl"):
            (self.start if command.startswith("systemctl enable") else self.stop)()
            return ""
        command = command.replace("/tmp/", f"{self.root.parent}/").replace("-C / ", f"-C {self.root} ")  # noqa: S108
        for place in ("/etc/fieldfold", "/var/backups"):
            command = command.replace(place, f"{self.root}{place}")
        command = re.sub("^fieldfold ", f"{sys.executable} -m fieldfold ", command)
        if " backup " in command and self.service is not None:
            command += f" --socket {self.service.socket}"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def end(self) -> None:
        if self.service is not None:
            self.service.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PlainMosquitto]:
    made = PlainMosquitto(tmp_path / "broker")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def machines(broker: PlainMosquitto, tmp_path: Path) -> Iterator[dict[str, Machine]]:
    made = {name: Machine(tmp_path / name, broker.url) for name in ("old", "new")}
    for machine in made.values():
        (machine.root / "var/backups/fieldfold").mkdir(parents=True)
    yield made
    for machine in made.values():
        machine.end()


@pytest.fixture
def node(broker: PlainMosquitto) -> Iterator[MqttLink]:
    link = plain_link(broker.url, "press-1")
    link.start()
    until(lambda: link.is_up)
    link.publish(TOPICS.key("press-1"), credential("press-1", TOPICS.key("press-1")), retain=True)
    yield link
    link.stop()


def send(link: MqttLink, sequence: int, run: str) -> None:
    for message in chunks(update("press-1", sequence, run=run)):
        link.publish(TOPICS.update("press-1"), message)


def facts(ledger: Path) -> tuple[str, int]:
    """Run, and how many updates are in it."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        [(run,)] = database.execute("SELECT id FROM run")
        [(count,)] = database.execute("SELECT count(*) FROM contribution WHERE accepted")
    return run, count


def do(machines: dict[str, Machine], lines: list[str]) -> list[str]:
    """Lines such as `old$ command`."""
    return [machines[machine].does(command) for machine, command in (line.split("$ ", 1) for line in lines)]


def run_of(machine: Machine, place: Path) -> str:
    """As a backup of the running aggregator tells it."""
    for command in commands("fieldfold aggregator backup"):
        said = machine.does(command)
    assert "bit for bit" in said
    return facts(place)[0]


def test_a_move(machines: dict[str, Machine], node: MqttLink) -> None:
    old, new = machines.values()
    old.start().is_at_work()
    run = run_of(old, old.root / "var/backups/fieldfold/ledger.sqlite")
    for sequence in (1, 2, 3):
        send(node, sequence, run)
    assert old.service is not None
    old.service.has_accepted(3)

    said = do(machines, commands("old$ systemctl stop"))
    assert any("bit for bit" in words for words in said)
    assert new.service is not None
    new.service.is_at_work()
    send(node, 4, run)
    new.service.has_accepted(4)

    old.start().ends_saying("another aggregator keeps this federation")
    new.stop()
    assert (facts(old.ledger), facts(new.ledger)) == ((run, 3), (run, 4))


def test_a_dead_disk(machines: dict[str, Machine], node: MqttLink) -> None:
    """It costs what came after the backup."""
    old, new = machines.values()
    old.start().is_at_work()
    backup = old.root / "var/backups/fieldfold/ledger.sqlite"
    run = run_of(old, backup)
    send(node, 1, run)
    assert old.service is not None
    old.service.has_accepted(1)
    old.service.kill()
    shutil.rmtree(old.root / "var/lib")

    shutil.copytree(old.root / "etc", new.root / "etc", ignore=shutil.ignore_patterns("*.sock"))
    shutil.copy(backup, new.root / "var/backups/fieldfold/ledger.sqlite")
    do(machines, commands("new$ fieldfold aggregator restore"))
    assert new.service is not None
    new.service.is_at_work()
    new.stop()
    assert facts(new.ledger) == (run, 0)


def test_the_exit_code_that_the_document_names() -> None:
    assert f"exit code {LeaseError.exit_code}" in DOCUMENT.read_text(encoding="utf-8")


def test_every_test_that_the_table_names_is_there() -> None:
    named = set(re.findall(r"\b([a-z_]+/test_[a-z_]+\.py)", DOCUMENT.read_text(encoding="utf-8")))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (DOCUMENT.parents[1] / "tests" / name).is_file()] == []
