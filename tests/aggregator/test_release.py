"""What is published: everybody who adds the same bytes holds the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.release import publish
from aggregator.release.model import advance, snapshot
from fieldfold.codec import PROFILES, decode
from fieldfold.params import Vector, as_vector, digest, from_bytes, norm, to_bytes
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import Assembly, object_digest, short
from fieldfold.wire.messages import Chunk, ModelDelta, ModelManifest, ModelSnapshot, TaskManifest, read, unpack
from fieldfold.wire.topics import Topics
from tests.aggregator.tiny import bundle

TOPICS = Topics("plant")
TASK = bundle().digest
SIZE = 500


def walk(seed: int, profile: str, steps: int) -> tuple[Vector, Vector, list[bytes]]:
    """A model that moves at random, and what is released of it."""
    generator = np.random.default_rng(seed)
    exact = generator.standard_normal(SIZE).astype(np.float32)
    released = exact.copy()
    deltas = []
    for version in range(steps):
        exact = exact + (0.01 * generator.standard_t(2, SIZE)).astype(np.float32)
        release = advance(exact, released, version, TASK, profile)
        assert release.version == version + 1
        assert release.digest == digest(release.released)
        released = release.released
        deltas.append(release.delta)
    return exact, released, deltas


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), profile=st.sampled_from(sorted(PROFILES)))
def test_a_node_that_adds_the_deltas_holds_the_same_bits(seed: int, profile: str) -> None:
    _, released, deltas = walk(seed, profile, 5)
    held = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    for version, message in enumerate(deltas, start=1):
        delta = unpack(ModelDelta, message)
        assert (delta.version, delta.task) == (version, short(TASK))
        held = held + decode(delta.payload, SIZE)
        assert short(digest(held)) == delta.parameters
    assert held.tobytes() == released.tobytes()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_what_the_quantiser_leaves_out_goes_out_later(profile: str) -> None:
    exact, released, _ = walk(1, profile, 10)
    behind = [norm(exact - released)]
    for version in range(10, 60):
        released = advance(exact, released, version, TASK, profile).released
        behind.append(norm(exact - released))
    assert behind[-1] <= 0.05 * max(behind[0], 1e-3)


def test_a_snapshot_holds_every_bit_and_the_normalisation() -> None:
    released = np.random.default_rng(3).standard_normal(SIZE).astype(np.float32)
    found = unpack(ModelSnapshot, snapshot(released, 7, TASK, Normalisation((1.5, -2.0), (0.5, 3.0))))
    assert decode(found.payload, SIZE).tobytes() == released.tobytes()
    assert (found.version, found.task, found.parameters) == (7, short(TASK), short(digest(released)))
    assert np.frombuffer(found.mean, "<f8").tolist() == [1.5, -2.0]
    assert np.frombuffer(found.std, "<f8").tolist() == [0.5, 3.0]
    bare = unpack(ModelSnapshot, snapshot(released, 7, TASK, None))
    assert (bare.mean, bare.std) == (b"", b"")


def put_together(messages: list[publish.Publication]) -> bytes:
    pieces = [unpack(Chunk, message.payload) for message in messages]
    assembly = Assembly(pieces[0])
    for piece in pieces:
        assembly.add(piece)
    return assembly.whole()


def test_the_task_goes_out_in_chunks_before_the_manifest_that_names_it() -> None:
    *pieces, last = publish.task_messages(TOPICS, bundle(), 700)
    assert put_together(pieces) == bundle().data
    assert [piece.topic for piece in pieces] == [TOPICS.bundle(TASK, index) for index in range(len(pieces))]
    manifest = read(TaskManifest, last.payload)
    assert last.topic == TOPICS.task_manifest
    assert (manifest.name, manifest.digest, manifest.size_bytes) == ("wear", TASK, len(bundle().data))


def test_a_manifest_leads_to_its_snapshot() -> None:
    whole = snapshot(as_vector(range(SIZE)), 40, TASK, None)
    described = publish.describe_snapshot(40, whole, 20)
    message = publish.manifest_message(
        TOPICS, task=TASK, version=45, parameters="ab" * 32, snapshot=described, chunk_bytes=700, score=float("nan")
    )
    manifest = read(ModelManifest, message.payload)
    pieces = list(publish.snapshot_messages(TOPICS, 40, whole, 20, manifest.chunk_bytes))
    assert pieces[0].topic == TOPICS.snapshot(manifest.snapshot_slot, 0)
    assert object_digest(put_together(pieces)) == manifest.snapshot_digest
    assert (manifest.version, manifest.snapshot_version, manifest.snapshot_bytes) == (45, 40, len(whole))
    assert manifest.score is None


@given(every=st.integers(1, 1000), version=st.integers(1, 10**6))
def test_slots_are_not_reused_while_a_newcomer_may_need_them(every: int, version: int) -> None:
    """A newcomer reads the newest snapshot, or the one before it, and all deltas after it."""
    newest_snapshot = version // every * every
    needed = range(max(0, newest_snapshot - every) + 1, version + 1)

    def slot(number: int) -> str:
        [message] = publish.delta_messages(TOPICS, number, b"delta", every, 700)
        return message.topic

    assert len({slot(needed[0]), slot(needed[-1])}) == min(2, len(needed))
    assert len(needed) <= 2 * every
    assert publish.snapshot_slot(newest_snapshot, every) != publish.snapshot_slot(newest_snapshot + every, every)


def test_vectors_on_disk_are_the_released_bits() -> None:
    _, released, _ = walk(5, "int8", 3)
    assert from_bytes(to_bytes(released)).tobytes() == released.tobytes()
