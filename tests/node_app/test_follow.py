"""Whatever the order in which a release arrives, every node comes to hold the same bits."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.release.model import advance, snapshot
from fieldfold.codec import decode
from fieldfold.errors import WireError
from fieldfold.params import Vector, as_vector, digest
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import cut, object_digest, short
from fieldfold.wire.messages import Chunk, ModelDelta, ModelManifest, ModelSnapshot, pack, unpack
from node_app.follow import Fetch, Follower, Model

TASK, OTHER_TASK = "ab" * 32, "cd" * 32
SIZE, FEATURES, VERSIONS = 200, 2, 12
SCALE = Normalisation((1.0, 2.0), (0.5, 3.0))
CHUNK_BYTES = 80


class History:
    """Versions 0 to VERSIONS of a model, as an aggregator releases them: each delta whole, and what it leads to."""

    def __init__(self, task: str = TASK) -> None:
        rng = np.random.default_rng(7)
        self.task = task
        self.released: list[Vector] = [as_vector(rng.standard_normal(SIZE))]
        self.deltas: dict[int, bytes] = {}
        exact = self.released[0]
        for version in range(1, VERSIONS + 1):
            exact = exact + as_vector(0.1 * rng.standard_normal(SIZE))
            release = advance(exact, self.released[-1], version - 1, task, "int4")
            self.released.append(release.released)
            self.deltas[version] = release.delta

    def snapshot(self, version: int) -> bytes:
        return snapshot(self.released[version], version, self.task, SCALE)

    def chunks(self, version: int) -> list[bytes]:
        return list(cut(self.deltas[version], CHUNK_BYTES))

    def manifest(self, version: int, snapshot_version: int = 0) -> ModelManifest:
        whole = self.snapshot(snapshot_version)
        return ModelManifest(
            task=self.task,
            version=version,
            parameters=digest(self.released[version]),
            snapshot_version=snapshot_version,
            snapshot_slot=0,
            snapshot_digest=object_digest(whole),
            snapshot_bytes=len(whole),
            chunk_bytes=CHUNK_BYTES,
        )


HISTORY = History()


@pytest.fixture
def follower() -> Follower:
    return Follower(TASK, SIZE, FEATURES)


@pytest.fixture
def at_zero(follower: Follower) -> Follower:
    follower.take_manifest(HISTORY.manifest(0))
    follower.take_snapshot(HISTORY.snapshot(0))
    return follower


def give(follower: Follower, *versions: int, history: History = HISTORY) -> None:
    for version in versions:
        for chunk in history.chunks(version):
            follower.take_delta(chunk)


def held(follower: Follower) -> Model:
    assert follower.model is not None
    return follower.model


def has_model(follower: Follower) -> bool:
    return follower.model is not None


def is_at(follower: Follower, version: int) -> bool:
    model = held(follower)
    return model.version == version and model.parameters.tobytes() == HISTORY.released[version].tobytes()


def straightforward_sum(up_to: int) -> Vector:
    total = HISTORY.released[0].copy()
    for version in range(1, up_to + 1):
        total += decode(unpack(ModelDelta, HISTORY.deltas[version]).payload, SIZE)
    return total


def test_a_newcomer_wants_a_snapshot_and_takes_the_normalisation_with_it(follower: Follower) -> None:
    follower.take_manifest(HISTORY.manifest(3))
    wanted_before = follower.wants_snapshot
    follower.take_snapshot(HISTORY.snapshot(3))
    assert (wanted_before, follower.wants_snapshot) == (True, False)
    assert is_at(follower, 3)
    assert held(follower).normalisation == SCALE
    assert not follower.has_gap


def test_who_knows_of_no_release_wants_nothing(follower: Follower) -> None:
    assert not follower.wants_snapshot
    assert not follower.has_gap


def test_deltas_lead_from_version_to_version(at_zero: Follower) -> None:
    for version in range(1, VERSIONS + 1):
        give(at_zero, version)
        assert is_at(at_zero, version)
    assert held(at_zero).normalisation == SCALE


def test_the_model_is_replaced_and_never_changed(at_zero: Follower) -> None:
    before = held(at_zero)
    bits = before.parameters.tobytes()
    give(at_zero, 1, 2)
    assert before.version == 0
    assert before.parameters.tobytes() == bits


def test_deltas_that_came_before_the_snapshot_are_added_to_it(follower: Follower) -> None:
    give(follower, 5, 6, 4, 3)
    assert not has_model(follower)
    follower.take_snapshot(HISTORY.snapshot(3))
    assert is_at(follower, 6)


def test_a_gap_is_known_and_closed_by_what_was_missing(at_zero: Follower) -> None:
    give(at_zero, 1, 3, 4)
    assert is_at(at_zero, 1)
    assert at_zero.has_gap
    assert at_zero.newest == 4
    give(at_zero, 2)
    assert is_at(at_zero, 4)
    assert not at_zero.has_gap


def test_a_newer_manifest_is_a_gap_until_the_deltas_come(at_zero: Follower) -> None:
    at_zero.take_manifest(HISTORY.manifest(2))
    assert at_zero.has_gap
    assert not at_zero.wants_snapshot, "the snapshot is as old as the model, deltas are the way"
    give(at_zero, 1, 2)
    assert not at_zero.has_gap


def test_who_fell_behind_the_snapshot_wants_it(at_zero: Follower) -> None:
    at_zero.take_manifest(HISTORY.manifest(9, snapshot_version=8))
    assert at_zero.wants_snapshot
    give(at_zero, 1, 2)
    assert at_zero.wants_snapshot
    at_zero.take_snapshot(HISTORY.snapshot(8))
    give(at_zero, 9)
    assert is_at(at_zero, 9)


def test_a_snapshot_never_leads_backwards(at_zero: Follower) -> None:
    give(at_zero, *range(1, 10))
    at_zero.take_snapshot(HISTORY.snapshot(8))
    assert is_at(at_zero, 9)


def test_a_stored_model_goes_on_with_deltas(follower: Follower) -> None:
    follower.start_from(Model(5, HISTORY.released[5], SCALE))
    give(follower, 4, 5, 6, 7)
    assert is_at(follower, 7)


def test_wrong_bits_drop_the_model_and_a_snapshot_mends_it(follower: Follower) -> None:
    changed = HISTORY.released[2].copy()
    changed[0] += np.float32(0.5)
    follower.start_from(Model(2, changed, SCALE))
    follower.take_manifest(HISTORY.manifest(4, snapshot_version=1))
    with pytest.raises(WireError, match="version 3 does not have the released digest"):
        give(follower, 3)
    assert not has_model(follower)
    assert follower.wants_snapshot
    follower.take_snapshot(HISTORY.snapshot(1))
    assert follower.has_gap
    give(follower, 2, 3, 4)
    assert is_at(follower, 4)


def test_what_was_reached_before_a_damaged_delta_is_kept(at_zero: Follower) -> None:
    bad = msgspec.structs.replace(unpack(ModelDelta, HISTORY.deltas[3]), payload=b"\x00\x00")
    (message,) = cut(pack(bad), 4096)
    at_zero.take_delta(message)
    give(at_zero, 2)
    with pytest.raises(WireError, match="delta to version 3 does not decode"):
        give(at_zero, 1)
    assert is_at(at_zero, 2)
    give(at_zero, 3)
    assert is_at(at_zero, 3)


def test_another_task_is_passed_over(at_zero: Follower) -> None:
    other = History(OTHER_TASK)
    at_zero.take_manifest(other.manifest(9, snapshot_version=8))
    assert not at_zero.wants_snapshot
    give(at_zero, 1, 2, 3, history=other)
    assert is_at(at_zero, 0)
    assert not at_zero.has_gap
    with pytest.raises(WireError, match="another task"):
        at_zero.take_snapshot(other.snapshot(1))
    assert is_at(at_zero, 0)


def damaged_snapshots() -> Iterator[tuple[str, bytes]]:
    good = unpack(ModelSnapshot, HISTORY.snapshot(2))
    flaws: dict[str, dict[str, object]] = {
        "does not decode": {"payload": good.payload[:-7]},
        "does not have the parameters": {"parameters": bytes(8)},
        "is not for 2 features": {"mean": good.mean[:8]},
        "one positive std for each feature": {"std": bytes(len(good.std))},
    }
    for reason, changes in flaws.items():
        yield reason, pack(msgspec.structs.replace(good, **changes))
    yield "not a ModelSnapshot", HISTORY.snapshot(2)[:40]


@pytest.mark.parametrize(("reason", "data"), list(damaged_snapshots()))
def test_a_damaged_snapshot_is_refused_and_the_model_stays(at_zero: Follower, reason: str, data: bytes) -> None:
    with pytest.raises(WireError, match=reason):
        at_zero.take_snapshot(data)
    assert is_at(at_zero, 0)


def test_a_damaged_chunk_is_refused_and_the_delta_can_come_again(at_zero: Follower) -> None:
    first, *rest = HISTORY.chunks(1)
    chunk = unpack(Chunk, first)
    flipped = pack(msgspec.structs.replace(chunk, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:]))
    for message in (flipped, *rest[:-1]):
        at_zero.take_delta(message)
    with pytest.raises(WireError, match="a delta is damaged"):
        at_zero.take_delta(rest[-1])
    give(at_zero, 1)
    assert is_at(at_zero, 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lost=st.none() | st.integers(1, VERSIONS))
def test_any_order_and_any_repetition_end_with_the_straightforward_sum(seed: int, lost: int | None) -> None:
    rng = random.Random(seed)
    follower = Follower(TASK, SIZE, FEATURES)
    start = rng.randrange(VERSIONS)
    messages: list[bytes | None] = [None]
    for version in HISTORY.deltas:
        if version != lost:
            messages += HISTORY.chunks(version) * rng.randint(1, 3)
    rng.shuffle(messages)
    for message in messages:
        if message is None:
            follower.take_snapshot(HISTORY.snapshot(start))
        else:
            follower.take_delta(message)
    reachable = VERSIONS if lost is None or lost <= start else lost - 1
    assert held(follower).version == reachable
    assert held(follower).parameters.tobytes() == straightforward_sum(reachable).tobytes()
    assert follower.has_gap == (reachable < follower.newest)


# -- a retained object that is read chunk by chunk --

BODY = bytes(range(256)) * 5


def test_an_object_is_whole_with_its_last_chunk_in_any_order() -> None:
    fetch = Fetch("bundle/+", object_digest(BODY), len(BODY), 200)
    messages = list(cut(BODY, 200))
    random.Random(3).shuffle(messages)
    assert fetch.progress == 0.0
    for message in (*messages[:-1], messages[0]):
        assert fetch.take(message) is None
    assert 0.5 < fetch.progress < 1.0
    assert fetch.take(messages[-1]) == BODY


def test_chunks_of_other_objects_are_passed_over() -> None:
    fetch = Fetch("snapshot/0/+", object_digest(BODY), len(BODY), 100)
    for message in cut(b"the snapshot before this one" * 20, 100):
        assert fetch.take(message) is None
    assert fetch.progress == 0.0


def test_an_object_that_is_larger_than_announced_is_not_collected() -> None:
    fetch = Fetch("bundle/+", object_digest(BODY), len(BODY) - 1, 200)
    assert all(fetch.take(message) is None for message in cut(BODY, 200))


def test_chunks_that_are_left_of_another_cut_are_passed_over() -> None:
    fetch = Fetch("bundle/+", object_digest(BODY), len(BODY), 300)
    *most, last = cut(BODY, 300)
    for message in (*most, *list(cut(BODY, 200))[-2:]):
        assert fetch.take(message) is None
    assert fetch.take(last) == BODY


def test_an_object_with_another_content_is_refused() -> None:
    announced = short(object_digest(BODY)).hex() + "0" * 48
    fetch = Fetch("bundle/+", announced, len(BODY), 200)
    *most, last = cut(BODY, 200)
    for message in most:
        fetch.take(message)
    with pytest.raises(WireError, match="not the one that was announced"):
        fetch.take(last)
