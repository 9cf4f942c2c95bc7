"""What the ledger promises: all or nothing, still there after a crash, and one owner at a time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Checkpoint, Decision, TaskRecord, VersionRecord
from fieldfold.errors import StoreError
from tests.aggregator.tiny import FEDERATION, NUM_PARAMS, accepted, bundle, full_disk, update

TASK = bundle().digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path, FEDERATION)
    yield ledger
    ledger.close()


def rejected(node: str = "press-1", sequence: int = 1) -> Decision:
    return msgspec.structs.replace(
        accepted(update(node, sequence)), accepted=False, body=None, code="stale", reason="too stale", hint="go on"
    )


def put(ledger: Ledger, *decisions: Decision) -> list[int]:
    with ledger.transaction():
        return [ledger.put_decision(decision) for decision in decisions]


def test_decisions_come_back_as_they_were_in_order(ledger: Ledger) -> None:
    sent = [accepted(update(sequence=1), 3), rejected(sequence=2), accepted(update("press-2", 1))]
    places = put(ledger, *sent)
    assert places == sorted(places)
    found = [ledger.decision(one.node, one.sequence) for one in sent]
    assert found == [msgspec.structs.replace(one, id=place) for one, place in zip(sent, places, strict=True)]
    assert ledger.decision("press-3", 1) is None
    assert [one.id for one in ledger.accepted_after(TASK, 0)] == [places[0], places[2]]
    assert [one.id for one in ledger.accepted_after(TASK, places[0])] == [places[2]]
    assert list(ledger.accepted_after("another task", 0)) == []
    assert [ledger.num_accepted(TASK, place) for place in (0, places[0], places[2])] == [2, 1, 0]


def test_counts_and_the_next_sequence(ledger: Ledger) -> None:
    size = accepted(update()).size_bytes
    put(ledger, accepted(update(sequence=1)), rejected(sequence=5), accepted(update("press-2", 9)))
    assert ledger.counts() == {"press-1": (1, 1, 2 * size, NUM_PARAMS), "press-2": (1, 0, size, NUM_PARAMS)}
    assert [ledger.next_sequence(node) for node in ("press-1", "press-2", "press-3")] == [6, 10, 1]


def test_the_norms_that_led_to_a_place_in_the_log(ledger: Ledger) -> None:
    numbered = [msgspec.structs.replace(accepted(update(sequence=index)), norm=float(index)) for index in range(1, 6)]
    places = put(ledger, *numbered[:2], rejected("press-2"), *numbered[2:])
    assert ledger.norms_until(TASK, places[4], 10, 9) == tuple(("press-1", norm) for norm in (1, 2, 3, 4))
    assert ledger.norms_until(TASK, places[4], 2, 9) == (("press-1", 3), ("press-1", 4))
    assert ledger.norms_until(TASK, places[4], 10, 1) == (("press-1", 4),)
    assert ledger.norms_until(TASK, 0, 10, 9) == ()


def test_a_sequence_number_is_used_once(ledger: Ledger) -> None:
    put(ledger, accepted(update()))
    with pytest.raises(StoreError, match="UNIQUE"):
        put(ledger, rejected())
    put(ledger, rejected(sequence=2))


def assert_empty(ledger: Ledger) -> None:
    assert ledger.chunks() == []
    assert ledger.decision("press-1", 1) is None
    assert ledger.version(TASK, 1) is None


def test_a_transaction_is_all_or_nothing(ledger: Ledger, path: Path) -> None:
    class PowerCutError(Exception):
        pass

    def write_and_fail() -> None:
        with ledger.transaction():
            ledger.put_chunk("press-1", b"12345678", 0, b"piece")
            ledger.put_decision(accepted(update()))
            ledger.put_version(VersionRecord(TASK, 1, 1, "ab", b"delta", {}))
            raise PowerCutError

    with pytest.raises(PowerCutError):
        write_and_fail()
    assert_empty(ledger)
    ledger.close()
    reopened = Ledger(path, FEDERATION)
    assert_empty(reopened)
    reopened.close()


def test_a_full_disk_writes_nothing_says_so_and_is_forgotten_when_there_is_room(ledger: Ledger) -> None:
    large = accepted(update(body=bytes(200_000)))
    put(ledger, accepted(update("press-2")))
    with full_disk(ledger):
        with pytest.raises(StoreError) as caught:
            put(ledger, rejected("press-3"), large)
        assert "the ledger cannot be written: database or disk is full" in caught.value.reason
        assert caught.value.hint == "make room on that disk"
        with pytest.raises(StoreError, match="disk is full"):
            put(ledger, large)
        assert ledger.decision("press-3", 1) is None
        assert ledger.decision("press-2", 1) is not None
    put(ledger, large)
    assert ledger.decision("press-1", 1) is not None


def test_everything_is_there_after_reopening(path: Path) -> None:
    ledger = Ledger(path, FEDERATION)
    with ledger.transaction():
        ledger.add_task(TaskRecord(TASK, "wear", b"bundle"))
        ledger.put_statistics(TASK, "press-1", b"sums")
        ledger.put_normalisation(TASK, b"value", 1)
        ledger.put_chunk("press-1", b"12345678", 3, b"piece")
        ledger.put_version(VersionRecord(TASK, 0, 0, "ab", b"", {"press-1": 0.5}))
        ledger.put_checkpoint(Checkpoint(TASK, 0, 0, b"exact", b"released", b"state"))
    ledger.close()
    ledger = Ledger(path, FEDERATION)
    assert ledger.task() == TaskRecord(TASK, "wear", b"bundle")
    assert ledger.statistics(TASK) == {"press-1": b"sums"}
    assert ledger.normalisation(TASK) == b"value"
    assert ledger.chunks() == [("press-1", b"12345678", b"piece")]
    assert ledger.version(TASK, 0) == VersionRecord(TASK, 0, 0, "ab", b"", {"press-1": 0.5})
    assert ledger.checkpoint(TASK) == Checkpoint(TASK, 0, 0, b"exact", b"released", b"state")
    ledger.close()


def test_what_was_committed_survives_kill_9(path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from aggregator.ledger.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), 'plant')\n"
        "for position in range(10):\n"
        "    with ledger.transaction():\n"
        "        ledger.put_chunk('press-1', b'12345678', position, b'piece')\n"
        "ledger._db.execute('BEGIN')\n"
        "ledger.put_chunk('press-1', b'12345678', 10, b'not committed')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    ledger = Ledger(path, FEDERATION)
    assert ledger.chunks() == [("press-1", b"12345678", b"piece")] * 10
    ledger.close()


def test_the_newest_task_is_the_present_one_and_an_old_one_can_come_back(ledger: Ledger) -> None:
    one, two = TaskRecord("1" * 64, "one", b"1"), TaskRecord("2" * 64, "two", b"2")
    assert ledger.task() is None
    for task in (one, two, one):
        with ledger.transaction():
            ledger.add_task(task)
        assert ledger.task() == task


def test_statistics_are_the_newest_of_each_node_by_name(ledger: Ledger) -> None:
    with ledger.transaction():
        for node, sums in (("b", b"1"), ("a", b"2"), ("b", b"3")):
            ledger.put_statistics(TASK, node, sums)
    assert list(ledger.statistics(TASK).items()) == [("a", b"2"), ("b", b"3")]


def test_a_piece_is_kept_once_and_forgotten_with_its_update(ledger: Ledger) -> None:
    with ledger.transaction():
        assert ledger.put_chunk("a", b"12345678", 0, b"first")
        assert not ledger.put_chunk("a", b"12345678", 0, b"again")
        assert ledger.put_chunk("b", b"12345678", 0, b"other node")
        ledger.drop_chunks("a", b"12345678")
    assert ledger.chunks() == [("b", b"12345678", b"other node")]


def test_the_newest_two_checkpoints_are_kept_and_the_first_of_each_day(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = {0: 1.0, 20: 1.1, 40: 1.9, 60: 2.0, 80: 2.5, 100: 3.2, 120: 3.3, 140: 3.4}
    with ledger.transaction():
        for version, day in days.items():
            monkeypatch.setattr("time.time", lambda day=day: 86_400 * day)
            ledger.put_checkpoint(Checkpoint(TASK, version, version, b"x", b"y", b"z"))
        ledger.put_checkpoint(Checkpoint("other", 1, 1, b"", b"", b""))
    assert [place.version for place in ledger.checkpoints(TASK)] == [0, 60, 100, 120, 140]
    newest, older = ledger.checkpoint(TASK), ledger.checkpoint(TASK, 60)
    assert newest is not None
    assert older is not None
    assert (newest.version, older.version, ledger.checkpoint(TASK, 20)) == (140, 60, None)
    assert ledger.checkpoint("other") is not None


def test_another_federation_s_ledger(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with pytest.raises(StoreError, match=f"its federation is {FEDERATION}, not mill; give another state_dir"):
        Ledger(path, "mill")
    Ledger(path, FEDERATION).close()


def test_a_ledger_of_a_later_format(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    database.close()
    with pytest.raises(StoreError, match="its format is 99, not 6"):
        Ledger(path, FEDERATION)


def test_a_second_process_is_refused_until_the_first_has_ended(ledger: Ledger, path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aggregator.ledger.ledger import Ledger\n"
        "from fieldfold.errors import StoreError\n"
        "try: Ledger(Path(sys.argv[1]), 'plant')\n"
        "except StoreError as error: print(error.hint); sys.exit(6)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 6, second.stderr
    assert second.stdout.startswith("another program has it open")
    put(ledger, accepted(update()))
    ledger.close()
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to be taken for one" * 100, b"\x00" * 5000]
)
def test_a_file_that_is_no_ledger(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="the ledger cannot be opened: file is not a database"):
        Ledger(path, FEDERATION)
    assert path.read_bytes() == content


def test_a_ledger_that_was_damaged_within(ledger: Ledger, path: Path) -> None:
    put(ledger, *(accepted(update(sequence=index, body=bytes(9000))) for index in range(1, 30)))
    ledger.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :] = b"\xa5" * (len(data) - len(data) // 4)
    path.write_bytes(data)

    def read_everything() -> None:
        damaged = Ledger(path, FEDERATION)
        try:
            damaged.counts()
            list(damaged.accepted_after(TASK, 0))
        finally:
            damaged.close()

    with pytest.raises(StoreError) as caught:
        read_everything()
    assert "restore a backup" in caught.value.hint


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="the ledger cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.sqlite", FEDERATION)
