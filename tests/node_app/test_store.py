"""What the node's database promises: numbers that are never used twice, and nothing trained that gets lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
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
from node_app.store import VECTORS_KEPT, Parcel, Store, StoredVector, Totals

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
    kept = store.unsent(run)
    before = kept.feedback if kept else ErrorFeedback.start(SIZE)
    encoded = before.encode(delta(seed), "int4")
    update = ClientUpdate(
        node="press-07",
        sequence=1,
        run=bytes.fromhex(run),
        base_version=base_version,
        num_examples=100,
        num_steps=10,
        train_loss=0.5,
        trained_norm=encoded.norm,
        base_score=(0.0, 0),
        base_loss=0.0,
        class_scores=(),
        payload=encoded.payload,
    )
    return store.add_update(update, encoded), encoded.feedback


def carried(parcel: Parcel) -> Vector:
    return decode(unpack(ClientUpdate, parcel.body).payload, SIZE)


def receipt(parcel: Parcel, code: RejectionCode | None = None, *, next_sequence: int = 0) -> Receipt:
    return Receipt(
        sequence=parcel.sequence,
        update=parcel.digest,
        decision="rejected" if code else "accepted",
        code=code,
        next_sequence=next_sequence,
    )


def residual(store: Store) -> Vector:
    return residual_of(store, RUN)


def residual_of(store: Store, run: str) -> Vector:
    kept = store.unsent(run)
    assert kept is not None
    return kept.feedback.residual


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
    other = msgspec.structs.replace(parcel, digest="cd" * 32)
    assert not store.settle(receipt(other)), "same number, other content"
    assert not store.settle(receipt(msgspec.structs.replace(parcel, sequence=9)))
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
    assert np.array_equal(residual(store), after_second.residual + carried(first))
    assert sequences(store) == [2]
    assert store.totals() == Totals(rejected=1)


def test_another_run_begins_without_what_the_former_left(store: Store) -> None:
    former, _ = add(store, 1)
    _, feedback = add(store, 2, run="ef" * 8)
    assert store.unsent(RUN) is None
    assert store.settle(receipt(former, "stale"))
    newest = store.unsent("ef" * 8)
    assert newest is not None
    assert np.array_equal(newest.feedback.residual, feedback.residual)


def test_what_was_refused_for_its_content_is_not_sent_again(store: Store) -> None:
    parcel, feedback = add(store)
    assert store.settle(receipt(parcel, "invalid"))
    assert np.array_equal(residual(store), feedback.residual)
    assert store.totals() == Totals(rejected=1)


def test_what_nothing_has_left_of_is_taken_back_and_its_content_is_in_the_residual(store: Store) -> None:
    gone, _ = add(store, 1)
    assert store.depart(gone.sequence)
    first, _ = add(store, 2)
    second, after_second = add(store, 3, base_version=4)
    assert store.take_back(RUN) == 2
    assert sequences(store) == [gone.sequence]
    np.testing.assert_allclose(residual(store), after_second.residual + carried(first) + carried(second), atol=1e-6)
    unsent = store.unsent(RUN)
    assert unsent is not None
    assert unsent.steps == 20
    assert not store.depart(first.sequence), "a courier that comes too late is told"
    again, _ = add(store, 4)
    assert again.sequence == 4
    unsent = store.unsent(RUN)
    assert unsent is not None
    assert unsent.steps == 0, "it holds them now"


def test_taking_back_drops_what_belongs_to_a_run_that_is_over(store: Store) -> None:
    add(store, 1)
    store.depart(add(store, 2)[0].sequence)
    _, feedback = add(store, 3, run="ef" * 8)
    assert store.take_back("ef" * 8) == 1
    assert sequences(store) == [2], "what has left waits for its receipt"
    assert not np.array_equal(residual_of(store, "ef" * 8), feedback.residual)


def test_the_steps_that_wait_for_a_version_are_those_nothing_has_left_of(store: Store) -> None:
    parcel, _ = add(store, 1, base_version=3)
    add(store, 2, base_version=4)
    assert (store.steps_waiting(RUN, 3), store.steps_waiting(RUN, 4), store.steps_waiting(RUN, 5)) == (10, 10, 0)
    store.depart(parcel.sequence)
    assert store.steps_waiting(RUN, 3) == 0


def test_of_very_many_purposes_the_oldest_parameters_are_forgotten(store: Store) -> None:
    for number in range(20):
        store.put_vector("global", StoredVector(TASK, RUN, number, delta(), None))
        store.put_vector(f"local/{number}", StoredVector(TASK, RUN, number, delta(number), None))
    newest = store.vector("global", TASK)
    assert newest is not None
    assert newest.version == 19
    assert store.vector("local/19", TASK) is not None
    assert store.vector("local/3", TASK) is None
    (rows,) = store._transact(lambda db: db.execute("SELECT count(*) FROM vector").fetchone())
    assert rows == VECTORS_KEPT


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
    newest = store.unsent(RUN)
    assert newest is not None
    assert newest.base_version == 8
    assert np.array_equal(newest.feedback.residual, feedback.residual)
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
from tests.node_app.test_store import RUN, add
store = Store(Path(sys.argv[1]))
for version in range(1_000_000):
    if version % 3:
        store.depart(version)
    store.take_back(RUN)
    add(store, version, base_version=version)
    print(version, flush=True)
"""


def test_after_kill_9_every_run_is_in_an_update_or_in_the_residual(tmp_path: Path) -> None:
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
    parcels = store.parcels()
    kept = [parcel.sequence for parcel in parcels]
    assert kept == sorted(kept)
    newest = store.unsent(RUN)
    assert newest is not None
    assert newest.base_version >= max(told, default=20), "what was said to be kept is kept"
    sent = np.sum([carried(parcel) for parcel in parcels], axis=0, dtype=np.float64)
    wanted = np.sum([delta(seed) for seed in range(newest.base_version + 1)], axis=0, dtype=np.float64)
    assert np.allclose(sent + newest.feedback.residual, wanted, atol=1e-4)
    steps = sum(unpack(ClientUpdate, parcel.body).num_steps for parcel in parcels)
    assert 10 * len(parcels) <= steps + newest.steps <= 10 * (newest.base_version + 1)
    store.close()


def test_a_second_daemon_is_refused(store: Store) -> None:
    with pytest.raises(StoreError) as refused:
        Store(store.path)
    assert "another daemon runs on it" in refused.value.hint
    assert str(store.path) in refused.value.reason


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be opened") as refused:
        Store(tmp_path / "file" / "node.sqlite")
    assert "permissions" in refused.value.hint


@pytest.fixture
def disk_full(store: Store) -> Callable[[bool], None]:
    """Makes SQLite find no room for another page, or room again."""

    def switch(full: bool) -> None:  # noqa: FBT001 - on or off
        store._database._db.execute(f"PRAGMA max_page_count = {1 if full else 1 << 30}")

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
        store._database._db.execute("SELECT 1")
