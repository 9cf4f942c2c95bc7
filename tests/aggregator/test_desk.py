"""Chunks in any order become whole updates; what one node may hold here is bounded."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.intake.desk import OPEN_PER_NODE, Desk, Outcome
from fieldfold.errors import WireError
from fieldfold.wire.chunks import cut, object_digest, short
from fieldfold.wire.messages import Chunk, ClientUpdate, pack, unpack
from tests.aggregator.tiny import MAX_UPDATE_BYTES, chunks, update

SMALL = 64


def large(sequence: int = 1, node: str = "press-1", size: int = 300) -> ClientUpdate:
    """An update of several chunks."""
    noise = np.random.default_rng(sequence).bytes(size)
    return update(node, sequence, body=noise)


def take(desk: Desk, message: bytes, node: str = "press-1", max_bytes: int = MAX_UPDATE_BYTES) -> Outcome:
    return desk.take(node, unpack(Chunk, message), max_bytes)


def take_all(desk: Desk, messages: list[bytes], node: str = "press-1") -> list[Outcome]:
    return [take(desk, message, node) for message in messages]


def wholes(outcomes: list[Outcome]) -> list[ClientUpdate]:
    return [outcome.whole.update for outcome in outcomes if outcome.whole is not None]


def held_bytes(desk: Desk, node: str) -> int:
    """What lies on the desk for a node."""
    return sum(len(piece) for assembly in desk._nodes[node]._open.values() for piece in assembly._pieces.values())


def test_one_chunk_is_a_whole_update_at_once() -> None:
    sent = update()
    [message] = chunks(sent)
    outcome = take(Desk(), message)
    assert outcome.whole is not None
    assert outcome.whole.update == sent
    assert outcome.whole.body == pack(sent)
    assert outcome.whole.digest == object_digest(pack(sent))
    assert not outcome.keep


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_order_and_any_repetition_give_the_update_once(data: st.DataObject) -> None:
    sent = large()
    pieces = chunks(sent, SMALL)
    repeated = pieces + data.draw(st.lists(st.sampled_from(pieces), max_size=10))
    outcomes = take_all(Desk(), data.draw(st.permutations(repeated)))
    assert sent in wholes(outcomes)
    until_whole = outcomes[: next(index for index, outcome in enumerate(outcomes) if outcome.whole) + 1]
    kept = {outcome.chunk.index for outcome in until_whole if outcome.keep}
    assert len(kept) == len(pieces) - 1
    assert sum(outcome.keep for outcome in until_whole) == len(kept)


def test_what_was_kept_on_disk_is_named_once_it_is_over() -> None:
    desk = Desk()
    outcomes = take_all(desk, chunks(large(), SMALL))
    assert [outcome.over for outcome in outcomes[:-1]] == [()] * (len(outcomes) - 1)
    assert outcomes[-1].over == (short(object_digest(pack(large()))),)


def test_updates_of_several_nodes_and_sequences_do_not_mix() -> None:
    desk = Desk()
    sent = [large(1), large(2), large(1, "press-2")]
    lanes = [[(one.node, piece) for piece in chunks(one, SMALL)] for one in sent]
    outcomes = [take(desk, piece, node) for row in zip(*lanes, strict=True) for node, piece in row]
    assert wholes(outcomes) == sent


def test_updates_that_are_never_finished_make_way_for_newer_ones() -> None:
    desk = Desk()
    first = [take(desk, chunks(large(sequence), SMALL)[0]) for sequence in range(1, 20)]
    given_up = [outcome.over for outcome in first]
    assert given_up[:OPEN_PER_NODE] == [()] * OPEN_PER_NODE
    assert [over[0] for over in given_up[OPEN_PER_NODE:]] == [
        outcome.chunk.digest for outcome in first[:-OPEN_PER_NODE]
    ]
    assert held_bytes(desk, "press-1") == OPEN_PER_NODE * SMALL


def test_one_node_cannot_push_out_another_s() -> None:
    desk = Desk()
    mine = chunks(large(), SMALL)
    take_all(desk, mine[:-1])
    for sequence in range(20):
        take(desk, chunks(large(sequence + 1, "press-2"), SMALL)[0], "press-2")
    assert wholes([take(desk, mine[-1])]) == [large()]


def test_an_update_that_is_cut_anew_begins_anew() -> None:
    """The broker's limit may have fallen between two attempts."""
    desk = Desk()
    take_all(desk, chunks(large(), SMALL)[:-1])
    outcomes = take_all(desk, chunks(large(), SMALL - 10))
    assert outcomes[0].over == (outcomes[0].chunk.digest,)
    assert outcomes[0].keep
    assert wholes(outcomes) == [large()]


def test_claimed_sizes_allocate_nothing() -> None:
    desk = Desk()
    chunk = Chunk(digest=b"12345678", total_bytes=1 << 18, chunk_bytes=4, index=5, data=b"1234")
    assert desk.take("press-1", chunk, 1 << 18).keep
    assert held_bytes(desk, "press-1") == 4


def forged(**changes: object) -> bytes:
    chunk = unpack(Chunk, chunks(large(), SMALL)[1])
    return pack(msgspec.structs.replace(chunk, **changes))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not a Chunk"),
        (b"\xc1" * 40, "not a Chunk"),
        (b"x" * 5000, "not a Chunk"),
        (chunks(update())[0][:-1], "not a Chunk"),
        (forged(total_bytes=1 << 30), f"at most {MAX_UPDATE_BYTES} are taken"),
        (forged(total_bytes=2**63), "not a Chunk"),
        (forged(chunk_bytes=0), "not a Chunk"),
        (forged(index=1 << 20), "of an object with"),
        (forged(total_bytes=1 << 20, chunk_bytes=1), "an object in 1048576 chunks; at most 65536 are taken"),
        (forged(index=-1), "not a Chunk"),
        (forged(data=b"short"), "holds 5 bytes, 64 were announced"),
        (forged(data=b"l" * 65), "holds 65 bytes, 64 were announced"),
        (forged(digest=b"short"), "not a Chunk"),
        (forged(format=2), "not a Chunk"),
        (bytes([forged()[0] + 1]) + forged()[1:] + b"\x91" * 60_000, "recursion"),
    ],
)
def test_a_message_that_is_no_chunk(message: bytes, reason: str) -> None:
    desk = Desk()
    with pytest.raises(WireError, match=reason):
        take(desk, message)
    assert wholes(take_all(desk, chunks(large(), SMALL))) == [large()]


def test_pieces_that_together_are_another_object() -> None:
    desk = Desk()
    pieces = chunks(large(), SMALL)
    outcomes = take_all(desk, [pieces[0], forged(data=b"?" * SMALL), *pieces[2:]])
    assert "digest" in outcomes[-1].malformed
    assert outcomes[-1].over == (outcomes[-1].chunk.digest,)
    assert wholes(take_all(desk, pieces)) == [large()]


@pytest.mark.parametrize("body", [b"no update at all", pack(update())[:-1], b"\x91" * 3000])
def test_a_whole_object_that_is_no_update(body: bytes) -> None:
    [message] = cut(body, 4096)
    outcome = take(Desk(), message)
    assert outcome.malformed.startswith("not a ClientUpdate")
    assert outcome.whole is None
    assert not outcome.keep


def mangled(seed: int) -> bytes:
    """A piece of an update with one byte changed."""
    generator = np.random.default_rng(seed)
    pieces = chunks(large(), SMALL)
    message = bytearray(pieces[generator.integers(len(pieces))])
    message[generator.integers(len(message))] = generator.integers(256)
    return bytes(message)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=120) | st.integers(0, 10**6).map(mangled), max_size=20))
def test_any_bytes_are_an_outcome_or_a_wire_error(messages: list[bytes]) -> None:
    desk = Desk()
    for message in messages:
        try:
            take(desk, message, max_bytes=1 << 12)
        except WireError:
            continue
    if "press-1" in desk._nodes:
        assert held_bytes(desk, "press-1") <= OPEN_PER_NODE << 12
