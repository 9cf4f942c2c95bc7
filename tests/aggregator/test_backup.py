"""A backup is made while the aggregator runs, and an aggregator goes on from one as if nothing had been."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aggregator.cli import aggregator as command
from aggregator.config import AggregatorConfig
from aggregator.fold.fedbuff import FedBuff
from aggregator.history import audit
from aggregator.ledger import backup as backup_module
from aggregator.ledger.backup import Backup, restore
from aggregator.ledger.ledger import Ledger
from fieldfold.errors import ControlError, StoreError
from fieldfold.link.memory import MemoryBroker
from tests.aggregator.histories import UPDATES, live_through, written
from tests.aggregator.running import Node, RunningAggregator, Witness
from tests.aggregator.tiny import FEDERATION, Plant, bundle, config, update

TASK = bundle().digest
RAW = bundle("raw", "none")
NOISE_BYTES = 50_000


def fill(ledger: Ledger, count: int) -> None:
    """Makes the file larger than a few slices."""
    noise = np.random.default_rng(0)
    with ledger.transaction():
        for index in range(count):
            ledger.put_chunk("press-9", index.to_bytes(8), 0, noise.bytes(NOISE_BYTES))


def verified(path: Path) -> audit.Finding:
    ledger = Ledger.existing(path)
    try:
        finding = audit.verify(ledger, ledger.tasks()[-1], lambda _: None)
    finally:
        ledger.close()
    assert finding.difference is None
    return finding


def test_what_is_committed_between_two_slices_is_in_the_backup(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2))
    live_through(plant, 4)
    fill(plant.ledger, 100)
    making = Backup(plant.ledger, tmp_path / "backup.sqlite")
    rounds = 0
    while making.view.state == "running":
        with plant.ledger.turn:
            if making.view.state == "running":
                live_through(plant, 2, seed=rounds)
                rounds += 1
    making.wait()
    assert making.view.state == "done", making.view.trouble
    assert rounds >= 3, "the ledger was in use while it was copied"
    live_through(plant, 2)
    plant.ledger.close()

    finding = verified(tmp_path / "backup.sqlite")
    assert 4 < finding.contributions < verified(tmp_path / "ledger.sqlite").contributions
    assert finding.versions == finding.contributions // 2 + 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["backup.sqlite", "ledger.sqlite"]


def write_and_fail(ledger: Ledger, position: int) -> None:
    with ledger.transaction():
        ledger.put_chunk("press-1", bytes(8), position, b"never committed")
        raise InterruptedError


def test_an_update_that_is_half_written_is_in_no_backup(tmp_path: Path) -> None:
    """A transaction that is rolled back while a backup waits for its turn."""
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1))
    fill(plant.ledger, 60)
    making = Backup(plant.ledger, tmp_path / "backup.sqlite")
    for sequence in range(1, 6):
        with plant.ledger.turn, pytest.raises(InterruptedError):
            write_and_fail(plant.ledger, sequence)
    making.wait()
    plant.ledger.close()
    with_backup = Ledger.existing(tmp_path / "backup.sqlite")
    assert all(node == "press-9" for node, _, _ in with_backup.chunks())
    assert len(with_backup.chunks()) == 60
    with_backup.close()


@pytest.fixture
def folding(start: Callable[[AggregatorConfig], RunningAggregator]) -> RunningAggregator:
    aggregator = start(config(FedBuff(buffer_size=1)))
    aggregator.publish(RAW)
    aggregator.reaches(0)
    return aggregator


def ask_for(path: Path, folder: Path) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(command, ["backup", str(path), "--socket", str(folder / "control.sock")])
    return result.exit_code, result.output, result.exception


def test_over_the_control_socket_while_updates_come(
    folding: RunningAggregator, broker: MemoryBroker, witness: Witness, tmp_path: Path
) -> None:
    folding.within(lambda: fill(folding.service._ledger, 100))
    node, answered, over = Node(broker, "press-1"), 0, threading.Event()

    def make() -> None:
        ask_for(tmp_path / "backup.sqlite", tmp_path)
        over.set()

    making = threading.Thread(target=make)
    making.start()
    while not over.is_set():
        answered += 1
        node.send(update(sequence=answered, base_version=0))
        assert witness.receipt("press-1", answered).decision == "accepted"
    making.join()
    view = folding.status.backup
    assert view is not None
    assert (view.state, view.done_bytes) == ("done", view.size_bytes)
    assert view.size_bytes == (tmp_path / "backup.sqlite").stat().st_size
    assert 0 < verified(tmp_path / "backup.sqlite").contributions <= answered


def test_nothing_is_overwritten_and_no_folder_is_made(folding: RunningAggregator, tmp_path: Path) -> None:
    taken = tmp_path / "precious"
    taken.write_text("data", encoding="utf-8")
    code, _, error = ask_for(taken, tmp_path)
    assert (code, taken.read_text(encoding="utf-8")) == (1, "data")
    assert isinstance(error, ControlError)
    assert "there is a file already" in error.reason
    _, _, error = ask_for(tmp_path / "none" / "backup", tmp_path)
    assert isinstance(error, ControlError)
    assert "no such folder" in error.reason
    assert folding.status.backup is None


def test_a_backup_that_cannot_be_written_says_why_and_leaves_nothing(
    folding: RunningAggregator, tmp_path: Path
) -> None:
    (tmp_path / "backup.part").mkdir()
    code, _, error = ask_for(tmp_path / "backup", tmp_path)
    assert code == 1
    assert isinstance(error, StoreError)
    assert "no backup was made" in error.reason
    (tmp_path / "backup.part").rmdir()
    assert ask_for(tmp_path / "backup", tmp_path)[0] == 0
    assert folding.status.state == "folding"


def test_an_aggregator_that_ends_takes_its_half_made_backup_along(
    folding: RunningAggregator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "SLICE_BYTES", 4096)
    monkeypatch.setattr(backup_module, "PAUSE_S", 0.01)
    folding.within(lambda: fill(folding.service._ledger, 100))
    folding.service._desk.back_up("somebody", str(tmp_path / "backup"))
    with pytest.raises(ControlError, match="is still being made"):
        folding.service._desk.back_up("somebody", str(tmp_path / "another"))
    folding.stop()
    view = folding.service._desk.backup
    assert view is not None
    assert (view.state, "make it again" in view.trouble) == ("failed", True)
    assert not list(tmp_path.glob("backup*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from aggregator.ledger import backup
from aggregator.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), "plant")
backup.SLICE_BYTES, backup.PAUSE_S = 4096, 0.05
made = backup.Backup(ledger, Path(sys.argv[2]))
while made.view.done_bytes < 40960: pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_in_the_middle_leaves_a_part_that_the_next_one_replaces(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2))
    ledger = Ledger(path, FEDERATION)
    fill(ledger, 40)
    ledger.close()
    target = tmp_path / "backup"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), str(target)], check=False).returncode == -9
    assert not target.exists()
    ledger = Ledger(path, FEDERATION)
    Backup(ledger, target).wait()
    ledger.close()
    assert verified(target).contributions == UPDATES
    assert not target.with_name("backup.part").exists()


def aggregator_toml(folder: Path) -> Path:
    path = folder / "aggregator.toml"
    path.write_text(
        'federation = "plant"\nstate_dir = "state"\n[broker]\nurl = "mqtt://127.0.0.1"\n', encoding="utf-8"
    )
    return path


def test_restored_it_goes_on_from_there_and_the_former_ledger_is_kept(tmp_path: Path) -> None:
    """Also where the former one was killed and left a log beside it, which must not be played over the backup."""
    path, copy = tmp_path / "state" / "ledger.sqlite", tmp_path / "backup"
    plant = Plant(path, FedBuff(buffer_size=2))
    live_through(plant, 6)
    Backup(plant.ledger, copy).wait()
    before = plant.digests()
    plant.ledger.close()
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom aggregator.ledger.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), 'plant')\n"
        "with ledger.transaction(): ledger.put_chunk('press-1', bytes(8), 0, bytes(100_000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.with_name("ledger.sqlite-wal").stat().st_size > 0

    result = CliRunner().invoke(command, ["restore", str(copy), "--config", str(aggregator_toml(tmp_path))])
    assert result.exit_code == 0, result.output
    [former] = path.parent.glob("ledger.sqlite.before-*[0-9]")
    assert f"the former one is {former}" in result.output
    plant = Plant(path, FedBuff(buffer_size=2))
    assert plant.digests() == before
    assert plant.ledger.chunks() == []
    plant.ledger.close()
    kept = Ledger.existing(former)
    assert len(kept.chunks()) == 1, "what was kept is whole, its log included"
    kept.close()


def test_what_may_not_be_put_in_a_ledger_s_place(tmp_path: Path) -> None:
    copy = written(tmp_path / "copy", FedBuff(buffer_size=2))
    with pytest.raises(StoreError, match="it is of the federation plant, not mill"):
        restore(copy, tmp_path / "state" / "ledger.sqlite", "mill")
    damaged = tmp_path / "damaged"
    data = bytearray(copy.read_bytes())
    data[len(data) // 2 :] = b"\xa5" * (len(data) - len(data) // 2)
    damaged.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        restore(damaged, tmp_path / "state" / "ledger.sqlite", FEDERATION)
    assert not (tmp_path / "state").exists()


def test_a_ledger_in_use_is_not_replaced(tmp_path: Path) -> None:
    copy = written(tmp_path / "copy", FedBuff(buffer_size=2))
    running = Ledger(tmp_path / "state" / "ledger.sqlite", FEDERATION)
    fill(running, 1)
    program = "from fieldfold.cli.main import main; main()"
    arguments = ["aggregator", "restore", str(copy), "--config", str(aggregator_toml(tmp_path))]
    asked = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert "an aggregator runs on it; stop it first" in asked.stderr
    assert len(running.chunks()) == 1
    running.close()
