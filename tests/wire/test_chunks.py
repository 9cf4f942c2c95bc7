from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.errors import WireError
from fieldfold.wire.chunks import Assemblies, Assembly, chunk_size, cut, num_chunks, object_digest, short
from fieldfold.wire.messages import MAX_OBJECT_BYTES, Chunk, pack, unpack

QUICK = settings(max_examples=60, deadline=None)
OBJECTS = st.binary(min_size=1, max_size=400)


def pieces(data: bytes, chunk_bytes: int) -> list[Chunk]:
    return [unpack(Chunk, message) for message in cut(data, chunk_bytes)]


@QUICK
@given(OBJECTS, st.integers(1, 500))
def test_the_pieces_in_order_are_the_object(data: bytes, chunk_bytes: int) -> None:
    found = pieces(data, chunk_bytes)
    assert b"".join(piece.data for piece in found) == data
    assert [piece.index for piece in found] == list(range(num_chunks(len(data), chunk_bytes)))
    assert {piece.digest for piece in found} == {short(object_digest(data))}
    assert {len(piece.data) for piece in found[:-1]} <= {chunk_bytes}


@pytest.mark.parametrize("message_bytes", [1024, 60 * 1024, 1 << 20])
@pytest.mark.parametrize("size", [1, 1 << 16, 3 << 20])
def test_no_message_is_larger_than_the_broker_takes(message_bytes: int, size: int) -> None:
    assert max(map(len, cut(bytes(size), chunk_size(message_bytes)))) <= message_bytes


def test_the_envelope_of_the_largest_object_fits_too() -> None:
    data = bytes(chunk_size(1 << 20))
    last = Chunk(
        digest=b"\xff" * 8,
        total_bytes=MAX_OBJECT_BYTES,
        chunk_bytes=len(data),
        index=MAX_OBJECT_BYTES // len(data),
        data=data,
    )
    assert len(pack(last)) <= 1 << 20


def test_an_empty_object_cannot_be_sent() -> None:
    with pytest.raises(WireError, match="0 bytes cannot be sent"):
        list(cut(b"", 100))


@QUICK
@given(st.data())
def test_an_assembly_takes_pieces_in_any_order(data: st.DataObject) -> None:
    original = data.draw(OBJECTS)
    found = data.draw(st.permutations(pieces(original, data.draw(st.integers(1, 100)))))
    assembly = Assembly(found[0])
    for count, piece in enumerate(found, start=1):
        assert assembly.add(piece)
        assert not assembly.add(piece)
        assert assembly.missing == len(found) - count
    assert assembly.whole() == original


def test_an_assembly_says_what_it_lacks() -> None:
    first, *_ = pieces(bytes(100), 30)
    assembly = Assembly(first)
    with pytest.raises(WireError, match="4 of 4 chunks are missing"):
        assembly.whole()


@pytest.mark.parametrize("change", [{"digest": b"otherone"}, {"total_bytes": 101}, {"chunk_bytes": 31}])
def test_an_assembly_takes_no_piece_of_another_object(change: dict[str, object]) -> None:
    first, second, *_ = pieces(bytes(100), 30)
    assembly = Assembly(first)
    with pytest.raises(WireError, match="another object, or of the same cut differently"):
        assembly.add(msgspec.structs.replace(second, **change))


@QUICK
@given(st.data())
def test_objects_that_come_interleaved_are_all_put_together(data: st.DataObject) -> None:
    originals = data.draw(st.lists(OBJECTS, min_size=1, max_size=3, unique=True))
    stream = data.draw(st.permutations([piece for one in originals for piece in pieces(one, 60)]))
    assemblies = Assemblies(1 << 20, max_open=3)
    found = [taken.whole for taken in map(assemblies.take, stream) if taken.whole is not None]
    assert sorted(found) == sorted(originals)


def test_the_oldest_makes_way() -> None:
    assemblies = Assemblies(1 << 20, max_open=2)
    firsts = [pieces(bytes([number]) * 100, 60)[0] for number in range(3)]
    assert [assemblies.take(piece).over for piece in firsts] == [(), (), (firsts[0].digest,)]


def test_an_object_that_is_cut_differently_begins_anew() -> None:
    assemblies = Assemblies(1 << 20, max_open=1)
    assemblies.take(pieces(bytes(100), 60)[0])
    first, *rest = pieces(bytes(100), 30)
    anew = assemblies.take(first)
    assert anew.fresh
    assert anew.over == (first.digest,)
    assert [taken.whole for taken in map(assemblies.take, rest)] == [None, None, bytes(100)]


def test_a_damaged_object_is_over_and_says_why() -> None:
    assemblies = Assemblies(1 << 20, max_open=1)
    first, last = pieces(bytes(100), 60)
    assemblies.take(msgspec.structs.replace(first, data=b"x" * 60))
    taken = assemblies.take(last)
    assert taken.whole is None
    assert "digest" in taken.spoiled
    assert taken.over == (last.digest,)


@QUICK
@given(st.data())
def test_whatever_chunks_come_memory_is_bounded(data: st.DataObject) -> None:
    claims = st.builds(
        Chunk,
        digest=st.sampled_from([b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"]),
        total_bytes=st.integers(1, 1 << 30),
        chunk_bytes=st.integers(1, 1 << 30),
        index=st.integers(0, 2**53 - 1),
        data=st.binary(max_size=50),
    )
    fitting = claims.map(
        lambda chunk: msgspec.structs.replace(
            chunk, total_bytes=90, chunk_bytes=30, index=chunk.index % 3, data=bytes(30)
        )
    )
    assemblies = Assemblies(100, max_open=2)
    for chunk in data.draw(st.lists(claims | fitting, max_size=30)):
        try:
            assemblies.take(chunk)
        except WireError:
            continue
        held = sum(len(piece) for one in assemblies._open.values() for piece in one._pieces.values())
        assert held <= 200
