"""What is published: everybody who adds the same bytes holds the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.release import publish, way
from aggregator.release.model import advance, snapshot
from aggregator.release.shelf import Publication, Shelf
from fieldfold.codec import PROFILES, decode
from fieldfold.params import Vector, digest, from_bytes, norm, to_bytes
from fieldfold.trust.signing import Verifier
from fieldfold.wire.chunks import Assembly, short
from fieldfold.wire.messages import Chunk, ModelDelta, ModelSnapshot, TaskManifest, read, unpack
from fieldfold.wire.topics import AGGREGATOR, Topics
from tests.aggregator.tiny import RUN, bundle
from tests.identities import signer

TOPICS = Topics("plant")
VERIFIER = Verifier(signer(AGGREGATOR).public_key, AGGREGATOR)
TASK = bundle().digest
SIZE = 500
FOR_RELEASES = sorted(name for name, profile in PROFILES.items() if not profile.is_unbiased)


def walk(seed: int, profile: str, steps: int) -> tuple[Vector, Vector, list[bytes]]:
    """A model that moves at random, and what is released of it."""
    generator = np.random.default_rng(seed)
    exact = generator.standard_normal(SIZE).astype(np.float32)
    released = exact.copy()
    deltas = []
    for version in range(steps):
        exact = exact + (0.01 * generator.standard_t(2, SIZE)).astype(np.float32)
        release = advance(exact, released, version, RUN, profile)
        assert release.version == version + 1
        assert release.digest == digest(release.released)
        released = release.released
        deltas.append(release.delta)
    return exact, released, deltas


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), profile=st.sampled_from(FOR_RELEASES))
def test_a_node_that_adds_the_deltas_holds_the_same_bits(seed: int, profile: str) -> None:
    _, released, deltas = walk(seed, profile, 5)
    held = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    for version, message in enumerate(deltas, start=1):
        delta = unpack(ModelDelta, message)
        assert (delta.version, delta.run.hex()) == (version, RUN)
        held = held + decode(delta.payload, SIZE)
        assert short(digest(held)) == delta.parameters
    assert held.tobytes() == released.tobytes()


@pytest.mark.parametrize("profile", FOR_RELEASES)
def test_what_the_quantiser_leaves_out_goes_out_later(profile: str) -> None:
    exact, released, _ = walk(1, profile, 10)
    behind = [norm(exact - released)]
    for version in range(10, 60):
        released = advance(exact, released, version, RUN, profile).released
        behind.append(norm(exact - released))
    assert behind[-1] <= 0.05 * max(behind[0], 1e-3)


def test_a_snapshot_holds_every_bit() -> None:
    released = np.random.default_rng(3).standard_normal(SIZE).astype(np.float32)
    found = unpack(ModelSnapshot, snapshot(released, 7, RUN))
    assert decode(found.payload, SIZE).tobytes() == released.tobytes()
    assert (found.version, found.run.hex(), found.parameters) == (7, RUN, short(digest(released)))


# -- what stands in retained topics --


def put_together(messages: list[Publication]) -> bytes:
    pieces = [unpack(Chunk, message.payload) for message in messages]
    assembly = Assembly(pieces[0])
    for piece in pieces:
        assembly.add(piece)
    return assembly.whole()


def test_the_task_goes_out_in_chunks_before_the_manifest_that_names_it() -> None:
    signed = publish.task_messages(Shelf({}), TOPICS, signer(AGGREGATOR), bundle(), chunk_bytes=700, issued=5)
    *pieces, last = signed
    assert put_together(pieces) == bundle().data
    assert [piece.topic for piece in pieces] == [f"{TOPICS.bundle(TASK)}/{index}" for index in range(len(pieces))]
    manifest = read(TaskManifest, VERIFIER.open(TOPICS.task_manifest, last.payload))
    assert last.topic == TOPICS.task_manifest
    assert (manifest.name, manifest.digest, manifest.size_bytes) == ("wear", TASK, len(bundle().data))
    assert manifest.issued == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=30), st.integers())
def test_nothing_is_left_of_what_lay_there_before(sizes: list[tuple[int, int]], restart: int) -> None:
    """Whenever the shelf is remembered anew after a restart."""
    shelf, broker = Shelf({}), dict[str, bytes]()
    objects: dict[str, bytes] = {}
    for turn, (place, size) in enumerate(sizes):
        prefix, data = f"slot/{place}", bytes([turn % 256]) * size
        if turn == restart % len(sizes):
            shelf = Shelf(shelf.most)
        messages = list(shelf.put(prefix, data, 10) if size else shelf.clear(prefix))
        objects.pop(prefix, None)
        if size:
            objects[prefix] = data
        for message in messages:
            broker[message.topic] = message.payload
        broker = {topic: payload for topic, payload in broker.items() if payload}
    found = {prefix: [Publication(t, p) for t, p in broker.items() if t.startswith(prefix)] for prefix in objects}
    assert {prefix: put_together(messages) for prefix, messages in found.items()} == objects
    assert len(broker) == sum(map(len, found.values()))


# -- the cheapest way --


def test_a_young_model_needs_no_snapshot() -> None:
    assert way.deltas_from(dict.fromkeys(range(1, 21), 100), 20, 2000) == 0


def test_deltas_are_the_way_while_they_cost_less_than_the_snapshot() -> None:
    costs = dict.fromkeys(range(1, 101), 100)
    assert way.deltas_from(costs, 100, 2050) == 80
    assert way.deltas_from(costs, 100, 99) == 100
    del costs[95]
    assert way.deltas_from(costs, 100, 2050) == 95, "a delta that is not there any more ends the way"


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=60),
    snapshot_bytes=st.integers(1, 100_000),
    chunk_bytes=st.integers(100, 60_000),
)
def test_nobody_pays_more_than_for_the_other_way(sizes: list[int], snapshot_bytes: int, chunk_bytes: int) -> None:
    costs = {version: way.on_the_wire(size, chunk_bytes) for version, size in enumerate(sizes, start=1)}
    cost = way.on_the_wire(snapshot_bytes, chunk_bytes)
    start = way.deltas_from(costs, len(sizes), cost)
    for version in range(len(sizes) + 1):
        by_deltas = sum(costs[later] for later in range(version + 1, len(sizes) + 1))
        assert (by_deltas <= cost) == (version >= start)


def test_a_snapshot_comes_when_the_deltas_weigh_half_of_it_or_are_many() -> None:
    assert not way.snapshot_is_due(14_999, 10, 10_000, 100)
    assert way.snapshot_is_due(15_000, 10, 10_000, 100)
    assert way.snapshot_is_due(100, 100, 10_000, 100)


def test_vectors_on_disk_are_the_released_bits() -> None:
    _, released, _ = walk(5, "int8", 3)
    assert from_bytes(to_bytes(released)).tobytes() == released.tobytes()
