from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.errors import WireError
from fieldfold.wire.messages import (
    MAX_JSON_BYTES,
    AggregatorPresence,
    Binary,
    Chunk,
    ClientUpdate,
    Command,
    ModelDelta,
    ModelManifest,
    ModelSnapshot,
    NodePresence,
    Readable,
    Receipt,
    SnapshotPlace,
    Statistics,
    TaskManifest,
    pack,
    read,
    unpack,
    write,
)

DIGEST = "ab" * 32
NAME = b"\xab" * 8

BINARY: list[Binary] = [
    Chunk(digest=NAME, total_bytes=10, chunk_bytes=10, index=0, data=b"0123456789"),
    ClientUpdate(
        node="press-1",
        sequence=1,
        run=NAME,
        base_version=0,
        num_examples=5,
        num_steps=1,
        train_loss=0.5,
        trained_norm=2.0,
        base_score=(0.25, 7),
        base_loss=0.75,
        class_scores=((0.5, 4), (0.0, 0), (-1.25, 3)),
        payload=b"delta",
    ),
    ModelSnapshot(run=NAME, version=0, parameters=NAME, payload=b"model"),
    ModelDelta(run=NAME, version=1, parameters=NAME, payload=b"delta"),
]
READABLE: list[Readable] = [
    TaskManifest(issued=1, name="wear", digest=DIGEST, size_bytes=1, chunk_bytes=1),
    ModelManifest(
        issued=1,
        task=DIGEST,
        run="ab" * 8,
        version=3,
        parameters=DIGEST,
        deltas_from=1,
        delta_slots=4,
        chunk_bytes=5,
        snapshot=SnapshotPlace(version=2, slot=1, digest=DIGEST, size_bytes=10),
    ),
    Statistics(issued=1, task=DIGEST, count=(1.0,), total=(2.0,), total_of_squares=(4.0,)),
    Receipt(sequence=1, update=DIGEST, decision="rejected", code="stale", reason="too stale"),
    Command(issued=1, command="pause"),
    NodePresence(node="press-1", state="training"),
    AggregatorPresence(state="folding"),
]


def name_of(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", BINARY, ids=name_of)
def test_binary_messages_are_arrays_that_begin_with_the_format(message: Binary) -> None:
    assert unpack(type(message), pack(message)) == message
    fields = msgspec.msgpack.decode(pack(message))
    assert isinstance(fields, list)
    assert fields[0] == 1


@pytest.mark.parametrize("message", READABLE, ids=name_of)
def test_readable_messages_are_json_objects(message: Readable) -> None:
    assert read(type(message), write(message)) == message
    assert json.loads(write(message))["format"] == 1


@pytest.mark.parametrize("message", BINARY, ids=name_of)
def test_a_reader_passes_over_what_a_later_release_adds(message: Binary) -> None:
    longer = [*msgspec.msgpack.decode(pack(message)), "new", {"more": [1]}]
    assert unpack(type(message), msgspec.msgpack.encode(longer)) == message


def test_a_reader_passes_over_keys_it_does_not_know() -> None:
    message = READABLE[0]
    more = json.dumps({**json.loads(write(message)), "colour": [1, {"a": None}]}).encode()
    assert read(type(message), more) == message


def with_field(message: Binary, **changes: Any) -> bytes:
    return pack(msgspec.structs.replace(message, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"node": "Press"},
        {"node": "a/b"},
        {"node": "press-1\n"},
        {"node": "a" * 64},
        {"sequence": 0},
        {"sequence": 2**53},
        {"base_version": -1},
        {"base_version": 2**53},
        {"num_steps": -1},
        {"num_examples": 1.5},
        {"run": b"short"},
        {"run": "ab" * 32},
        {"train_loss": "low"},
        {"trained_norm": None},
        {"base_score": (0.1,)},
        {"base_score": (0.1, -1)},
        {"base_loss": None},
        {"class_scores": None},
        {"class_scores": ((0.1,),)},
        {"class_scores": ((0.1, -1),)},
        {"class_scores": ((0.1, 1),) * 257},
        {"payload": "text"},
        {"payload": None},
    ],
    ids=str,
)
def test_an_update_is_checked_field_by_field(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="not a ClientUpdate"):
        unpack(ClientUpdate, with_field(BINARY[1], **changes))


@pytest.mark.parametrize("message", BINARY, ids=name_of)
def test_every_truncation_is_refused(message: Binary) -> None:
    data = pack(message)
    for size in range(len(data)):
        with pytest.raises(WireError):
            unpack(type(message), data[:size])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"task": "\xff"}',
        b'{"task": "\\ud800"}',
        b'{"format": 2, "task": "' + DIGEST.encode() + b'", "count": [], "total": [], "total_of_squares": []}',
        b'{"task": "' + DIGEST.encode() + b'\\n", "count": [], "total": [], "total_of_squares": []}',
        b'{"task": "' + DIGEST.encode() + b'", "count": [NaN], "total": [], "total_of_squares": []}',
        b'{"task": "' + DIGEST.encode() + b'", "count": [1e999], "total": [], "total_of_squares": []}',
        b'{"task": "'
        + DIGEST.encode()
        + b'", "count": ['
        + b"1," * 512
        + b'1], "total": [], "total_of_squares": []}',
    ],
)
def test_what_is_no_statistics(text: bytes) -> None:
    with pytest.raises(WireError, match="not a Statistics"):
        read(Statistics, text)


def test_values_nested_by_the_thousand_are_refused_like_any_other_nonsense() -> None:
    update = pack(BINARY[1])
    with pytest.raises(WireError, match="recursion"):
        unpack(ClientUpdate, bytes([update[0] + 1]) + update[1:] + b"\x91" * 60_000)
    with pytest.raises(WireError, match="recursion"):
        read(Statistics, b'{"x":' + b"[" * 60_000)
    with pytest.raises(WireError, match="recursion"):
        read(NodePresence, b'{"x":' + b'{"y":' * 10_000)


def test_a_claimed_length_allocates_nothing() -> None:
    for claim in (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(WireError):
            unpack(ClientUpdate, claim)
        with pytest.raises(WireError):
            unpack(Chunk, b"\x96\x01" + claim)


def test_json_is_bounded_both_ways() -> None:
    sums = (math.pi,) * 512
    with pytest.raises(WireError, match=f"at most {MAX_JSON_BYTES}"):
        read(Statistics, b" " * (MAX_JSON_BYTES + 1))
    with pytest.raises(WireError, match=f"at most {MAX_JSON_BYTES}"):
        write(NodePresence(node="a", state="x" * MAX_JSON_BYTES))
    largest = Statistics(issued=1, task=DIGEST, count=sums, total=sums, total_of_squares=sums)
    assert read(Statistics, write(largest)) == largest


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([type(message) for message in BINARY]), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(kind: type[Binary], data: bytes) -> None:
    try:
        message = unpack(kind, data)
    except WireError:
        return
    assert unpack(kind, pack(message)) == message or "nan" in repr(message)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([type(message) for message in READABLE]), st.binary(max_size=200) | st.text().map(str.encode))
def test_any_text_is_a_message_or_a_wire_error(kind: type[Readable], data: bytes) -> None:
    try:
        read(kind, data)
    except WireError:
        return
