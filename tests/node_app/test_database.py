"""A store that cannot be trusted is set aside and a new one begun; one that a newer program wrote is left alone."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fieldfold.errors import StoreDamagedError, StoreError
from node_app import database
from node_app.store import Store, StoredVector
from tests.node_app.test_store import RUN, TASK, add, delta, sequences


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "node.sqlite"


def filled(path: Path) -> None:
    """A store with a bundle and two updates."""
    with closing(Store(path)) as store:
        store.put_bundle(TASK, bytes(range(256)) * 800)
        add(store, 1)
        add(store, 2)


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 500)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def holed(path: Path) -> None:
    """A few pages of the middle are zeros, as after a power cut on a cheap card."""
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(bytes(4 * 4096))


def another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE outbox (id INTEGER)")


def older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 0")


@pytest.mark.parametrize("damage", [no_database, torn, holed, another_programs, older])
def test_what_cannot_be_trusted_is_set_aside_and_the_node_begins_anew(
    path: Path, damage: Callable[[Path], None]
) -> None:
    filled(path)
    damage(path)
    spoiled = path.read_bytes()
    with closing(Store(path)) as store:
        assert str(path) in store.notice
        assert "set aside as node.sqlite.damaged-1" in store.notice
        assert store.bundle() is None
        assert add(store)[0].sequence == 1, "the aggregator's receipt says where the numbering goes on"
    assert path.with_name("node.sqlite.damaged-1").read_bytes() == spoiled
    with closing(Store(path)) as store:
        assert store.notice == ""
        assert sequences(store) == [1]


def test_a_sound_store_is_left_as_it_is(path: Path) -> None:
    filled(path)
    with closing(Store(path)) as store:
        assert store.notice == ""
        assert sequences(store) == [1, 2]
    assert [each.name for each in path.parent.iterdir()] == ["node.sqlite"]


def test_only_the_newest_few_that_were_set_aside_are_kept(path: Path) -> None:
    path.parent.mkdir()
    for number in range(1, 6):
        path.write_bytes(b"damage %d " % number * 1000)
        Store(path).close()
    found = sorted(each.name for each in path.parent.glob("*damaged*"))
    assert found == [f"node.sqlite.damaged-{number}" for number in (3, 4, 5)]
    assert path.with_name("node.sqlite.damaged-5").read_bytes().startswith(b"damage 5")


def test_a_store_of_a_newer_program_is_not_touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(database, "FORMAT", database.FORMAT + 1)
        filled(path)
    before = path.read_bytes()
    formats = rf"store format {database.FORMAT + 1}; this one reads {database.FORMAT}"
    with pytest.raises(StoreError, match=rf"a newer fieldfold wrote it \({formats}\)") as refused:
        Store(path)
    assert "update fieldfold" in refused.value.hint
    assert path.read_bytes() == before


def test_a_second_daemon_never_sets_the_first_ones_store_aside(path: Path) -> None:
    with closing(Store(path)) as first:
        add(first)
        with pytest.raises(StoreError, match="locked") as refused:
            Store(path)
        assert "another daemon" in refused.value.hint
        assert sequences(first) == [1]


def test_damage_that_shows_while_it_runs_is_said_and_the_next_start_begins_anew(path: Path) -> None:
    with closing(Store(path)) as store:
        add(store)
        store._transact(lambda db: db.execute("UPDATE outbox SET body = x'00'"))
        with pytest.raises(StoreDamagedError, match="update 1 does not have its digest") as found:
            store.parcels()
        assert "start the node again" in found.value.hint
        assert "update 1" in store.damage
    with closing(Store(path)) as store:
        assert "was found damaged while the node ran" in store.notice
        assert sequences(store) == []
    with closing(Store(path)) as store:
        assert store.notice == ""


def test_a_residual_that_does_not_decode_is_damage(path: Path) -> None:
    with closing(Store(path)) as store:
        add(store)
        store._transact(lambda db: db.execute("UPDATE residual SET data = x'0102'"))
        with pytest.raises(StoreDamagedError, match="what the codec left out"):
            store.unsent(RUN)


@pytest.mark.parametrize(
    "change", ["data = CAST(x'0000803f' || substr(data, 5) AS BLOB)", "data = x'00'", "normalisation = x'ff'"]
)
def test_parameters_that_are_not_what_was_kept_are_damage(path: Path, change: str) -> None:
    with closing(Store(path)) as store:
        store.put_vector("local/x", StoredVector(TASK, RUN, 3, delta(), None))
        assert store.vector("local/x", TASK) is not None
        store._transact(lambda db: db.execute(f"UPDATE vector SET {change}"))  # noqa: S608 - from above
        with pytest.raises(StoreDamagedError, match="kept as local/x"):
            store.vector("local/x", TASK)


SET_ASIDE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from node_app import database
renamed = 0
rename = Path.rename
def rename_one(self, target):
    global renamed
    if renamed == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    renamed += 1
    return rename(self, target)
Path.rename = rename_one
from node_app.store import Store
Store(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_killed_while_a_store_is_set_aside_the_next_start_goes_on(path: Path, renamed: int) -> None:
    filled(path)
    torn(path)
    Path(f"{path}-wal").write_bytes(b"a log that belongs to it")
    died = subprocess.run([sys.executable, "-c", SET_ASIDE_AND_DIE, str(path), str(renamed)], check=False)
    assert died.returncode == -signal.SIGKILL
    with closing(Store(path)) as store:
        assert add(store)[0].sequence == 1
    assert path.with_name("node.sqlite.damaged-1").stat().st_size == 6000
