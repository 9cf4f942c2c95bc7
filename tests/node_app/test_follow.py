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
from fieldfold.trust.signing import Verifier
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import Chunk, ModelDelta, ModelManifest, ModelSnapshot, SnapshotPlace, pack, unpack
from fieldfold.wire.topics import AGGREGATOR, Topics
from node_app.follow import Follower, Model
from tests.identities import signer

TASK, OTHER_TASK = "ab" * 32, "cd" * 32
RUN, OTHER_RUN = "ab" * 8, "cd" * 8
TOPIC = Topics("plant").deltas
SIZE, FEATURES, VERSIONS = 200, 2, 12
SCALE = Normalisation((1.0, 2.0), (0.5, 3.0))
CHUNK_BYTES = 80
FIRST = as_vector(np.random.default_rng(6).standard_normal(SIZE))
"""The bundle's own parameters: version 0 of every run."""


def seal_of(delta: bytes) -> bytes:
    return signer(AGGREGATOR).seal(TOPIC, object_digest(delta))


def check(digest: str, seal: bytes) -> None:
    Verifier(signer(AGGREGATOR).public_key, AGGREGATOR).check(TOPIC, digest, seal)


class History:
    """Versions 0 to VERSIONS of a model, as an aggregator releases them: each delta whole, and what it leads to."""

    def __init__(self, run: str = RUN, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.run = run
        self.released: list[Vector] = [FIRST.copy()]
        self.deltas: dict[int, bytes] = {}
        exact = self.released[0]
        for version in range(1, VERSIONS + 1):
            exact = exact + as_vector(0.1 * rng.standard_normal(SIZE))
            release = advance(exact, self.released[-1], version - 1, run, "int4")
            self.released.append(release.released)
            self.deltas[version] = release.delta

    def snapshot(self, version: int) -> bytes:
        return snapshot(self.released[version], version, self.run)

    def chunks(self, version: int) -> list[bytes]:
        return list(cut(self.deltas[version], CHUNK_BYTES, seal_of(self.deltas[version])))

    def manifest(self, version: int, snapshot_version: int = 0, deltas_from: int | None = None) -> ModelManifest:
        place = None
        if snapshot_version:
            whole = self.snapshot(snapshot_version)
            place = SnapshotPlace(
                version=snapshot_version, slot=0, digest=object_digest(whole), size_bytes=len(whole)
            )
        return ModelManifest(
            issued=1,
            task=TASK,
            run=self.run,
            version=version,
            parameters=digest(self.released[version]),
            deltas_from=snapshot_version if deltas_from is None else deltas_from,
            delta_slots=2 * VERSIONS,
            chunk_bytes=CHUNK_BYTES,
            snapshot=place,
            mean=SCALE.mean,
            std=SCALE.std,
        )


HISTORY = History()


@pytest.fixture
def follower() -> Follower:
    return a_follower()


def a_follower() -> Follower:
    return Follower(TASK, SIZE, FEATURES, FIRST.copy, check)


@pytest.fixture
def at_zero(follower: Follower) -> Follower:
    follower.take_manifest(HISTORY.manifest(0))
    return follower


def give(follower: Follower, *versions: int, history: History = HISTORY) -> None:
    for version in versions:
        for chunk in history.chunks(version):
            follower.take_chunk(unpack(Chunk, chunk))


def held(follower: Follower) -> Model:
    assert follower.model is not None
    return follower.model


def has_model(follower: Follower) -> bool:
    return follower.model is not None


def wants_snapshot(follower: Follower) -> bool:
    return follower.wants_snapshot


def puzzled(follower: Follower) -> bool:
    return follower.puzzled


def is_at(follower: Follower, version: int) -> bool:
    model = held(follower)
    return model.version == version and model.parameters.tobytes() == HISTORY.released[version].tobytes()


def straightforward_sum(up_to: int) -> Vector:
    total = HISTORY.released[0].copy()
    for version in range(1, up_to + 1):
        total += decode(unpack(ModelDelta, HISTORY.deltas[version]).payload, SIZE)
    return total


def test_a_newcomer_to_a_young_run_begins_with_the_bundle_s_own_parameters(follower: Follower) -> None:
    follower.take_manifest(HISTORY.manifest(3))
    assert not wants_snapshot(follower)
    assert is_at(follower, 0)
    assert held(follower).normalisation == SCALE
    assert follower.missing_deltas() == [1, 2, 3]
    give(follower, 1, 3)
    assert follower.missing_deltas() == [2]


def test_a_newcomer_to_an_older_run_takes_the_snapshot_and_then_deltas(follower: Follower) -> None:
    follower.take_manifest(HISTORY.manifest(5, snapshot_version=3))
    assert wants_snapshot(follower)
    assert follower.missing_deltas() == []
    follower.take_snapshot(HISTORY.snapshot(3))
    assert not wants_snapshot(follower)
    assert is_at(follower, 3)
    assert held(follower).normalisation == SCALE
    assert follower.missing_deltas() == [4, 5]


def test_who_slept_takes_deltas_where_they_are_the_shorter_way(at_zero: Follower) -> None:
    give(at_zero, 1, 2, 3, 4)
    at_zero.take_manifest(HISTORY.manifest(9, snapshot_version=8, deltas_from=4))
    assert not wants_snapshot(at_zero)
    assert at_zero.missing_deltas() == [5, 6, 7, 8, 9]
    at_zero.take_manifest(HISTORY.manifest(9, snapshot_version=8, deltas_from=5))
    assert wants_snapshot(at_zero)


def test_who_knows_of_no_release_wants_nothing(follower: Follower) -> None:
    assert not wants_snapshot(follower)
    assert not follower.has_gap
    assert follower.missing_deltas() == []


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
    follower.take_manifest(HISTORY.manifest(3, snapshot_version=3))
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
    assert not wants_snapshot(at_zero), "the snapshot is as old as the model, deltas are the way"
    give(at_zero, 1, 2)
    assert not at_zero.has_gap


def test_who_fell_behind_the_snapshot_wants_it(at_zero: Follower) -> None:
    at_zero.take_manifest(HISTORY.manifest(9, snapshot_version=8))
    assert wants_snapshot(at_zero)
    give(at_zero, 1, 2)
    assert wants_snapshot(at_zero)
    at_zero.take_snapshot(HISTORY.snapshot(8))
    give(at_zero, 9)
    assert is_at(at_zero, 9)


def test_a_snapshot_never_leads_backwards(at_zero: Follower) -> None:
    give(at_zero, *range(1, 10))
    at_zero.take_snapshot(HISTORY.snapshot(8))
    assert is_at(at_zero, 9)


def test_a_stored_model_goes_on_with_deltas(follower: Follower) -> None:
    follower.start_from(Model(RUN, 5, HISTORY.released[5], SCALE))
    give(follower, 4, 5, 6, 7)
    assert is_at(follower, 7)


def test_wrong_bits_drop_the_model_and_a_snapshot_mends_it(follower: Follower) -> None:
    changed = HISTORY.released[2].copy()
    changed[0] += np.float32(0.5)
    follower.start_from(Model(RUN, 2, changed, SCALE))
    with pytest.raises(WireError, match="version 3 does not have the released digest"):
        give(follower, 3)
    assert not has_model(follower)
    assert puzzled(follower)
    follower.take_manifest(HISTORY.manifest(4, snapshot_version=1))
    assert not puzzled(follower)
    follower.take_snapshot(HISTORY.snapshot(1))
    assert follower.has_gap
    give(follower, 2, 3, 4)
    assert is_at(follower, 4)


def test_a_manifest_of_the_same_version_with_other_bits_drops_the_model(follower: Follower) -> None:
    changed = HISTORY.released[4].copy()
    changed[0] += np.float32(0.5)
    follower.start_from(Model(RUN, 4, changed, SCALE))
    follower.take_manifest(HISTORY.manifest(4, snapshot_version=3))
    assert not has_model(follower)
    assert wants_snapshot(follower)


def test_a_manifest_that_lags_behind_the_deltas_changes_nothing(at_zero: Follower) -> None:
    give(at_zero, 1, 2, 3)
    at_zero.take_manifest(HISTORY.manifest(1))
    assert is_at(at_zero, 3)
    assert not at_zero.has_gap


def test_what_was_reached_before_a_damaged_delta_is_kept(at_zero: Follower) -> None:
    bad = msgspec.structs.replace(unpack(ModelDelta, HISTORY.deltas[3]), payload=b"\x00\x00")
    (message,) = cut(pack(bad), 4096, seal_of(pack(bad)))
    at_zero.take_chunk(unpack(Chunk, message))
    give(at_zero, 2)
    with pytest.raises(WireError, match="delta to version 3 does not decode"):
        give(at_zero, 1)
    assert is_at(at_zero, 2)
    give(at_zero, 3)
    assert is_at(at_zero, 3)


def test_another_task_is_passed_over(at_zero: Follower) -> None:
    other = msgspec.structs.replace(HISTORY.manifest(9, snapshot_version=8), task=OTHER_TASK, run=OTHER_RUN)
    assert not at_zero.take_manifest(other)
    assert is_at(at_zero, 0)
    assert not at_zero.has_gap


def test_a_delta_of_another_run_puzzles_until_the_manifest_has_been_read(at_zero: Follower) -> None:
    """An aggregator that lost its ledger begins again at version 0, and everybody goes with it."""
    give(at_zero, 1, 2, 3)
    other = History(OTHER_RUN, seed=8)
    give(at_zero, 1, history=other)
    assert is_at(at_zero, 3)
    assert puzzled(at_zero)
    with pytest.raises(WireError, match="another run"):
        at_zero.take_snapshot(other.snapshot(1))
    at_zero.take_manifest(other.manifest(1))
    assert (held(at_zero).run, held(at_zero).version, at_zero.newest) == (OTHER_RUN, 0, 1)
    give(at_zero, 1, 2, history=other)
    assert held(at_zero).parameters.tobytes() == other.released[2].tobytes()


def test_a_model_that_the_aggregator_does_not_know_is_given_up(at_zero: Follower) -> None:
    """Its ledger was put back to an older state."""
    give(at_zero, *range(1, 10))
    at_zero.start_over()
    assert not has_model(at_zero)
    assert (puzzled(at_zero), at_zero.newest) == (True, 0)
    at_zero.take_manifest(HISTORY.manifest(4))
    give(at_zero, 1, 2, 3, 4)
    assert is_at(at_zero, 4)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("normalisation is not for 2 features", {"mean": (1.0,)}),
        ("one positive std for each feature", {"std": (0.0, 1.0)}),
        ("names no snapshot", {"deltas_from": 2}),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_and_the_model_stays(
    at_zero: Follower, reason: str, changes: dict[str, object]
) -> None:
    with pytest.raises(WireError, match=reason):
        at_zero.take_manifest(msgspec.structs.replace(HISTORY.manifest(3), **changes))
    assert is_at(at_zero, 0)


def damaged_snapshots() -> Iterator[tuple[str, bytes]]:
    good = unpack(ModelSnapshot, HISTORY.snapshot(2))
    flaws: dict[str, dict[str, object]] = {
        "does not decode": {"payload": good.payload[:-7]},
        "does not have the parameters": {"parameters": bytes(8)},
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
        at_zero.take_chunk(unpack(Chunk, message))
    with pytest.raises(WireError, match="a delta is damaged"):
        at_zero.take_chunk(unpack(Chunk, rest[-1]))
    give(at_zero, 1)
    assert is_at(at_zero, 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lost=st.none() | st.integers(1, VERSIONS))
def test_any_order_and_any_repetition_end_with_the_straightforward_sum(seed: int, lost: int | None) -> None:
    rng = random.Random(seed)
    follower = a_follower()
    start = rng.randrange(1, VERSIONS)
    follower.take_manifest(HISTORY.manifest(start, snapshot_version=start))
    messages: list[bytes | None] = [None]
    for version in HISTORY.deltas:
        if version != lost:
            messages += HISTORY.chunks(version) * rng.randint(1, 3)
    rng.shuffle(messages)
    for message in messages:
        if message is None:
            follower.take_snapshot(HISTORY.snapshot(start))
        else:
            follower.take_chunk(unpack(Chunk, message))
    reachable = VERSIONS if lost is None or lost <= start else lost - 1
    assert held(follower).version == reachable
    assert held(follower).parameters.tobytes() == straightforward_sum(reachable).tobytes()
    assert follower.has_gap == (reachable < follower.newest)
