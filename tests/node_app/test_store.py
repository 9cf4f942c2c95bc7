"""What the node's database promises: numbers that are never used twice, and nothing trained that gets lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldfold.codec import ErrorFeedback, decode
from fieldfold.errors import StoreError
from fieldfold.params import Vector, as_vector
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import ClientUpdate, Receipt, RejectionCode, unpack
from node_app.store import Parcel, Store, StoredVector, Totals

TASK, RUN = "ab" * 32, "cd" * 8
SIZE = 50
SCALE = Normalisation((1.0, 2.0), (0.5, 3.0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state" / "node.sqlite")
    yield opened
    opened.close()


def delta(seed: int = 0) -> Vector:
    return as_vector(np.random.default_rng(seed).standard_normal(SIZE))


def add(store: Store, seed: int = 0, *, base_version: int = 3, run: str = RUN) -> tuple[Parcel, ErrorFeedback]:
    """Encodes and enqueues a delta as the learner does; the residual it left comes along."""
    kept = store.residual(run)
    before = kept[1] if kept else ErrorFeedback.start(SIZE)
    encoded = before.encode(delta(seed), "int4")
    update = ClientUpdate(
        node="press-07",
        sequence=1,
        run=bytes.fromhex(run),
        base_version=base_version,
        num_examples=100,
        num_steps=10,
        train_loss=0.5,
        base_score=(0.0, 0),
        payload=encoded.payload,
    )
    return store.add_update(update, encoded.feedback), encoded.feedback


def receipt(parcel: Parcel, code: RejectionCode | None = None, *, next_sequence: int = 0) -> Receipt:
    return Receipt(
        sequence=parcel.sequence,
        update=parcel.digest,
        decision="rejected" if code else "accepted",
        code=code,
        next_sequence=next_sequence,
    )


def residual(store: Store) -> Vector:
    kept = store.residual(RUN)
    assert kept is not None
    return kept[1].residual


def sequences(store: Store) -> list[int]:
    return [parcel.sequence for parcel in store.parcels()]


def test_updates_are_numbered_from_one_and_wait_in_order(store: Store) -> None:
    for seed in range(3):
        add(store, seed)
    assert sequences(store) == [1, 2, 3]
    assert store.num_waiting() == 3
    for parcel in store.parcels():
        assert unpack(ClientUpdate, parcel.body).sequence == parcel.sequence
        assert object_digest(parcel.body) == parcel.digest


def test_a_receipt_takes_its_update_out_and_the_number_is_not_given_again(store: Store) -> None:
    parcel, _ = add(store)
    assert store.settle(receipt(parcel))
    assert store.parcels() == []
    assert add(store)[0].sequence == 2
    assert store.totals() == Totals(accepted=1)


def test_a_receipt_for_nothing_that_waits_changes_nothing(store: Store) -> None:
    parcel, _ = add(store)
    other = Parcel(parcel.sequence, "cd" * 32, b"")
    assert not store.settle(receipt(other)), "same number, other content"
    assert not store.settle(receipt(Parcel(9, parcel.digest, b"")))
    assert store.settle(receipt(parcel))
    assert not store.settle(receipt(parcel)), "the second copy of a receipt"
    assert store.totals() == Totals(accepted=1)


def test_an_update_whose_number_was_used_before_goes_out_under_a_new_one(store: Store) -> None:
    parcel, feedback = add(store)
    assert store.settle(receipt(parcel, "sequence_used", next_sequence=41))
    (again,) = store.parcels()
    assert again.sequence == 41
    assert unpack(ClientUpdate, again.body).payload == unpack(ClientUpdate, parcel.body).payload
    assert np.array_equal(residual(store), feedback.residual)
    assert store.totals() == Totals(), "it has not been decided on yet"
    assert add(store)[0].sequence == 42


@pytest.mark.parametrize("code", ["stale", "no_model"])
def test_what_came_too_late_goes_back_into_the_residual(store: Store, code: RejectionCode) -> None:
    first, _ = add(store, 1)
    _, after_second = add(store, 2)
    assert store.settle(receipt(first, code))
    carried = decode(unpack(ClientUpdate, first.body).payload, SIZE)
    assert np.array_equal(residual(store), after_second.residual + carried)
    assert sequences(store) == [2]
    assert store.totals() == Totals(rejected=1)


def test_another_run_begins_without_what_the_former_left(store: Store) -> None:
    former, _ = add(store, 1)
    _, feedback = add(store, 2, run="ef" * 8)
    assert store.residual(RUN) is None
    assert store.settle(receipt(former, "stale"))
    newest = store.residual("ef" * 8)
    assert newest is not None
    assert np.array_equal(newest[1].residual, feedback.residual)


def test_what_was_refused_for_its_content_is_not_sent_again(store: Store) -> None:
    parcel, feedback = add(store)
    assert store.settle(receipt(parcel, "invalid"))
    assert np.array_equal(residual(store), feedback.residual)
    assert store.totals() == Totals(rejected=1)


def test_everything_outlives_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    before = Store(path)
    before.put_bundle("old", b"old")
    before.put_bundle(TASK, b"bundle")
    before.put_vector("global", StoredVector(TASK, RUN, 8, delta(), SCALE))
    before.put_vector("served", StoredVector(TASK, RUN, 7, delta(1), None))
    parcel, feedback = add(before, base_version=8)
    before.close()

    store = Store(path)
    assert store.bundle() == b"bundle"
    kept, served = store.vector("global", TASK), store.vector("served", TASK)
    assert kept is not None
    assert (kept.run, kept.version, kept.values.tobytes(), kept.normalisation) == (RUN, 8, delta().tobytes(), SCALE)
    assert served is not None
    assert (served.version, served.normalisation) == (7, None)
    assert store.vector("global", "another task") is None
    assert store.parcels() == [parcel]
    newest = store.residual(RUN)
    assert newest is not None
    assert newest[0] == 8
    assert np.array_equal(newest[1].residual, feedback.residual)
    store.close()


Turn = tuple[str, int]
TURNS = st.lists(
    st.tuples(st.sampled_from(["add", "accept", "stale", "used", "reopen"]), st.integers(0, 5)), max_size=25
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=TURNS)
def test_no_number_is_ever_used_twice(turns: list[Turn], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("store") / "node.sqlite"
    store = Store(path)
    given_out: list[int] = []
    for turn, choice in turns:
        waiting = store.parcels()
        if turn == "add":
            given_out.append(add(store, choice)[0].sequence)
        elif turn == "reopen":
            store.close()
            store = Store(path)
        elif waiting:
            parcel = waiting[choice % len(waiting)]
            if turn == "used":
                assert store.settle(receipt(parcel, "sequence_used", next_sequence=parcel.sequence + choice))
                given_out.append(sequences(store)[-1])
            else:
                assert store.settle(receipt(parcel, "stale" if turn == "stale" else None))
    assert given_out == sorted(set(given_out))
    assert set(sequences(store)) <= set(given_out)
    store.close()


ENQUEUE_FOR_EVER = """
import sys
from pathlib import Path
from node_app.store import Store
from tests.node_app.test_store import add
store = Store(Path(sys.argv[1]))
for version in range(1_000_000):
    add(store, version, base_version=version)
    print(version, flush=True)
"""


def test_after_kill_9_every_update_lies_there_with_the_residual_it_left(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    process = subprocess.Popen([sys.executable, "-c", ENQUEUE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    told = [int(line) for line in process.stdout]
    process.wait()
    process.stdout.close()

    store = Store(path)
    updates = [unpack(ClientUpdate, parcel.body) for parcel in store.parcels()]
    assert [update.sequence for update in updates] == list(range(1, len(updates) + 1))
    assert len(updates) > max(told, default=20), "what was said to be kept is kept"
    newest = store.residual(RUN)
    assert newest is not None
    assert newest[0] == updates[-1].base_version
    sent = np.sum([decode(update.payload, SIZE) for update in updates], axis=0, dtype=np.float64)
    wanted = np.sum([delta(seed) for seed in range(len(updates))], axis=0, dtype=np.float64)
    assert np.allclose(sent + newest[1].residual, wanted, atol=1e-4)
    store.close()


def test_a_second_daemon_is_refused(store: Store) -> None:
    with pytest.raises(StoreError) as refused:
        Store(store.path)
    assert "another daemon runs on it" in refused.value.hint
    assert str(store.path) in refused.value.reason


@pytest.mark.parametrize("damage", ["not a database", "torn"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "node.sqlite"
    if damage == "torn":
        whole = Store(path)
        whole.put_bundle(TASK, bytes(200_000))
        whole.close()
        path.write_bytes(path.read_bytes()[:6000])
    else:
        path.write_bytes(b"no database at all" * 500)
    with pytest.raises(StoreError) as refused:
        Store(path)
    assert str(path) in refused.value.reason
    assert "move it away" in refused.value.hint


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be opened") as refused:
        Store(tmp_path / "file" / "node.sqlite")
    assert "permissions" in refused.value.hint


@pytest.fixture
def disk_full(store: Store) -> Callable[[bool], None]:
    """Makes SQLite find no room for another page, or room again."""

    def switch(full: bool) -> None:  # noqa: FBT001 - on or off
        store._db.execute(f"PRAGMA max_page_count = {1 if full else 1 << 30}")

    return switch


def test_a_full_disk_is_said_and_when_there_is_room_it_goes_on(
    store: Store, disk_full: Callable[[bool], None]
) -> None:
    parcel, feedback = add(store)
    disk_full(True)
    with pytest.raises(StoreError, match="disk is full") as refused:
        store.put_bundle(TASK, bytes(500_000))
    assert "make room" in refused.value.hint
    assert store.parcels() == [parcel], "what is there can be read"
    disk_full(False)
    store.put_bundle(TASK, b"bundle")
    assert store.bundle() == b"bundle"
    assert np.array_equal(residual(store), feedback.residual)


def test_closed_is_an_error_that_can_be_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.sqlite")
    store.close()
    with pytest.raises(StoreError):
        store.totals()
    with pytest.raises(sqlite3.ProgrammingError):
        store._db.execute("SELECT 1")
