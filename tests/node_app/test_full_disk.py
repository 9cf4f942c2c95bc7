"""A full disk pauses training and says so; when there is room again it goes on, and nothing was lost."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from pathlib import Path

import pytest

from fieldfold.errors import StoreError
from fieldfold.task.bundle import Bundle
from node_app import learner as learner_module
from node_app.daemon import Daemon
from node_app.store import Store
from tests.node_app.beside import Beside
from tests.node_app.running import Running, joined, says, until


def fill(daemon: Daemon) -> None:
    """The file cannot grow any more, as on a disk without room, and what is free in it is used up."""
    database = daemon._store._database
    with database._lock:
        database._db.execute("PRAGMA max_page_count = 1")
        with contextlib.suppress(sqlite3.OperationalError):
            for number in itertools.count():
                database._db.execute("INSERT INTO fact VALUES (?, zeroblob(900))", (f"filling {number}",))


def make_room(daemon: Daemon) -> None:
    database = daemon._store._database
    with database._lock:
        database._db.execute(f"PRAGMA max_page_count = {1 << 30}")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "RETRY_S", 0.2)


def test_what_was_trained_is_handed_in_when_there_is_room(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running(max_steps_per_s=10.0) as daemon:
        joined(beside, bundle)
        until(daemon, lambda status: status.step > 2)
        fill(daemon)
        status = says(daemon, "needs attention")
        assert "disk is full" in status.detail
        assert "make room on that disk" in status.detail
        assert status.outbox == 0
        beside.until(lambda: beside.presences[-1].state == "needs attention", "and the fleet hears of it")
        make_room(daemon)
        update = beside.next_update()
        assert update[1].num_steps == bundle.manifest.local_steps
        beside.receipt(update)
        until(daemon, lambda status: status.accepted == 1 and not status.outbox)
        assert daemon._learner.progress.step == bundle.manifest.local_steps


def test_a_receipt_that_cannot_be_kept_is_asked_for_again(
    running: Running, beside: Beside, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node_app.courier.FIRST_PATIENCE_S", 0.3)
    monkeypatch.setattr("node_app.courier._LOOK_S", 0.05)
    with running() as daemon:
        joined(beside, bundle)
        update = beside.next_update()
        monkeypatch.setattr(daemon._store, "settle", refuse)
        beside.receipt(update)
        assert beside.next_update()[0] == update[0], "the update is sent again, and answered again"
        monkeypatch.undo()
        beside.receipt(update)
        until(daemon, lambda status: status.accepted == 1)


def refuse(_: object) -> bool:
    raise StoreError("the disk is full")


def test_room_is_asked_for_before_anything_is_trained(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.sqlite")
    store.require_room(1000)
    with pytest.raises(StoreError, match="the disk is full") as refused:
        store.require_room(1 << 60)
    assert "make room" in refused.value.hint
    store.close()


def test_a_task_that_cannot_be_kept_is_learned_all_the_same(running: Running, beside: Beside, bundle: Bundle) -> None:
    with running(enabled=False) as daemon:
        says(daemon, "waiting for a task")
        fill(daemon)
        joined(beside, bundle)
        assert until(daemon, lambda status: status.version == 0).task == "turbofan"
        make_room(daemon)
