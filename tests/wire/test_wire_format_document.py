"""docs/WIRE_FORMAT.md against the package: by a reader written from the document, and table by table."""

from __future__ import annotations

import array
import hashlib
import random
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from fieldfold.codec import PROFILES, ErrorFeedback, Profile, decode, encode
from fieldfold.codec import payload as payload_module
from fieldfold.errors import CodecError, WireError
from fieldfold.params import Vector, digest
from fieldfold.sensors.schema import Target
from fieldfold.task.bundle import SECTION_NAMES
from fieldfold.task.manifest import Manifest
from fieldfold.wire.chunks import check_chunk, chunk_size, cut, object_digest, short
from fieldfold.wire.messages import (
    MAX_OBJECT_BYTES,
    Binary,
    Chunk,
    ClientUpdate,
    ModelDelta,
    ModelSnapshot,
    Readable,
    pack,
    unpack,
)
from fieldfold.wire.sealed import Credential
from tests.wire.independent_reader import FIELDS, Reader, f32, join_chunks

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/WIRE_FORMAT.md").read_text()
RUN = bytes(range(8))

FINE = Profile("fine", "dead_zone", error_target=0.001)
NEAR = Profile("near", "dead_zone", error_target=0.01)
FAIR = Profile("fair", "dead_zone", error_target=0.1)
EVERY_PROFILE = [*PROFILES.values(), FAIR, NEAR, FINE]
BINARY = {"Chunks": Chunk, "ClientUpdate": ClientUpdate, "ModelDelta": ModelDelta, "ModelSnapshot": ModelSnapshot}
BINARY |= {"Credential": Credential}
READABLE = {kind.__name__: kind for kind in Readable.__subclasses__()}


def section(title: str) -> str:
    """What stands below a heading, up to the next of any level."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"the document has no section {title}"
    return found[1]


def vectors() -> Iterator[tuple[str, Vector]]:
    rng = np.random.default_rng(7)
    for size in [*range(1, 21), 300, 4001, 50_000]:
        yield f"heavy tails {size}", (rng.standard_t(2.1, size) * 1e-3).astype(np.float32)
        if size not in {1, 2, 3, 8, 19, 4001, 50_000}:
            continue
        yield f"gaussian {size}", rng.normal(size=size).astype(np.float32)
        sparse = np.zeros(size, np.float32)
        sparse[rng.choice(size, max(1, size // 700), replace=False)] = rng.normal(size=max(1, size // 700))
        yield f"sparse {size}", sparse
        yield f"zeros {size}", np.zeros(size, np.float32)
        outlier = rng.normal(size=size).astype(np.float32)
        outlier[size // 2] = -3e5
        yield f"outlier {size}", outlier
    spikes = rng.normal(size=4001).astype(np.float32)
    spikes[::400] *= 2000
    yield "spikes", spikes
    yield "signed zeros", np.array([-0.0, 0.0, 1.0, -0.0], np.float32)
    yield "far apart", np.array([1e-38, 1e30, -1e-45, 7.0], np.float32)


VECTORS = dict(vectors())


def first_8(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:8]


def read_here(payload: bytes, size: int) -> bytes:
    """The bits of every float, as the package reads them."""
    return decode(payload, size).tobytes()


def read_there(payload: bytes, size: int) -> bytes:
    return array.array("f", Reader(payload).payload(size)).tobytes()


def client_update(payload: bytes, sequence: int = 3) -> ClientUpdate:
    return ClientUpdate(
        node="press-07",
        sequence=sequence,
        run=RUN,
        base_version=70_000,
        num_examples=2**40,
        num_steps=300,
        train_loss=0.1 + 1 / 3,
        trained_norm=2.0,
        base_score=(-13.25, 128),
        base_loss=0.5,
        class_scores=((0.5, 100), (-0.25, 28)),
        payload=payload,
    )


def shuffled(data: bytes, chunk_bytes: int) -> list[bytes]:
    """The chunks in another order, some of them twice."""
    chunks = list(cut(data, chunk_bytes))
    mixed = chunks + chunks[::3]
    random.Random(len(data)).shuffle(mixed)
    return mixed


def chunk_bytes_for(data: bytes) -> int:
    return min(chunk_size(60 * 1024), len(data) // 3 + 1)


@pytest.mark.parametrize("profile", EVERY_PROFILE, ids=lambda profile: profile.name)
def test_every_update_reads_the_same(profile: Profile) -> None:
    for name, vector in VECTORS.items():
        for num_trained in {None, vector.size * 2 // 3} if vector.size <= 4001 else {None}:
            payload = encode(vector, profile, num_trained=num_trained, seed=1)
            update = client_update(payload, vector.size)
            body = pack(update)
            found = Reader(join_chunks(shuffled(body, chunk_bytes_for(body)))).message("ClientUpdate")
            assert read_there(found["payload"], vector.size) == read_here(payload, vector.size), name
            assert list(found) == list(update.__struct_fields__)
            found["base_score"] = tuple(found["base_score"])
            found["class_scores"] = tuple(map(tuple, found["class_scores"]))
            assert found == msgspec.structs.asdict(update), name


def test_the_vectors_show_every_layout_and_every_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = dict.fromkeys((4, 5, 6, 8), 0)
    read_levels = Reader.levels

    def levels(self: Reader, layout: int, n: int) -> list[int]:
        found = read_levels(self, layout, n)
        largest[layout] = max(largest[layout], *map(abs, found))
        return found

    monkeypatch.setattr(Reader, "levels", levels)
    layouts = set()
    for vector in VECTORS.values():
        for profile in EVERY_PROFILE:
            payload = encode(vector, profile, num_trained=vector.size // 2 if vector.size < 400 else None, seed=1)
            layouts.add(payload[0] - 0x10)
            Reader(payload).payload(vector.size)
    assert layouts == set(range(9))
    assert largest[4] > 7
    assert largest[5] > 256
    assert largest[6] > 128
    assert largest[8] > 100


@pytest.mark.parametrize("profile", ["lossless", "int4", "compensated", "frugal"])
def test_what_error_feedback_expects_of_the_receiver_is_what_the_reader_reads(profile: str) -> None:
    rng = np.random.default_rng(1)
    feedback = ErrorFeedback.start(2000, num_trained=1900)
    for sequence in range(1, 5):
        delta = (rng.standard_t(2.1, 2000) * 1e-3).astype(np.float32)
        payload, decoded, feedback, *_ = feedback.encode(delta, profile, seed=sequence)
        found = Reader(pack(client_update(payload, sequence))).message("ClientUpdate")
        assert read_there(found["payload"], 2000) == decoded.tobytes()


def test_snapshot_and_deltas_lead_to_the_digests() -> None:
    rng = np.random.default_rng(2)
    size = 3000
    parameters = rng.normal(size=size).astype(np.float32)
    snapshot = ModelSnapshot(
        run=RUN,
        version=0,
        parameters=short(digest(parameters)),
        payload=encode(parameters, "lossless"),
    )
    body = pack(snapshot)
    found = Reader(join_chunks(shuffled(body, 999))).message("ModelSnapshot")
    assert found == msgspec.structs.asdict(snapshot)
    mine = Reader(found["payload"]).payload(size)
    assert first_8(struct.pack(f"<{size}f", *mine)) == found["parameters"]
    for version in range(1, 4):
        payload = encode((rng.standard_t(2.1, size) * 1e-2).astype(np.float32), "balanced")
        parameters += decode(payload, size)
        delta = ModelDelta(run=RUN, version=version, parameters=short(digest(parameters)), payload=payload)
        read = Reader(join_chunks(shuffled(pack(delta), 100))).message("ModelDelta")
        assert read == msgspec.structs.asdict(delta)
        change = Reader(read["payload"]).payload(size)
        mine = [f32(old + new) for old, new in zip(mine, change, strict=True)]
        assert first_8(struct.pack(f"<{size}f", *mine)) == read["parameters"]


def test_digests_are_what_the_document_says() -> None:
    data = bytes(range(256)) * 9
    whole = hashlib.sha256(data).hexdigest()
    assert object_digest(data) == whole
    assert short(whole) == first_8(data)
    assert {Reader(chunk).message("Chunk")["digest"] for chunk in cut(data, 100)} == {first_8(data)}
    assert digest(np.array([1.5, -2], np.float32)) == hashlib.sha256(struct.pack("<2f", 1.5, -2)).hexdigest()


def test_the_worked_examples() -> None:
    text = section("Examples")
    vector, step = re.findall(r"The vector \(([^)]*)\) at step (\S+)", text)[0]
    expected = [float(number) for number in vector.split(",")]
    levels = re.findall(r"has levels ([-0-9, ]+)\.", text)[0]
    assert [float(step) * int(level) for level in levels.split(",")] == expected
    examples = re.findall(r"In layout (\d):\n\n(.*?)\n(?! )\n?", text, re.DOTALL)
    assert [layout for layout, _ in examples] == ["4", "8"]
    for layout, example in examples:
        rows = re.findall(r"^ {4}((?:[0-9A-F]{2} )*[0-9A-F]{2})(?: {2,}|$)", example, re.MULTILINE)
        payload = bytes.fromhex("".join(rows))
        assert payload[0] == 0x10 + int(layout)
        assert struct.unpack("<f", payload[2:6])[0] == float(step)
        assert Reader(payload).payload(len(expected)) == expected == decode(payload, len(expected)).tolist()


def test_what_is_damaged_reads_the_same_or_is_refused_by_both() -> None:
    rng = random.Random(5)
    origins = [
        (encode(VECTORS[name], profile, num_trained=split, seed=1), VECTORS[name].size)
        for name in ("heavy tails 20", "heavy tails 300", "gaussian 19", "sparse 19", "outlier 8", "spikes")
        for profile in EVERY_PROFILE
        for split in (None, VECTORS[name].size // 2)
    ]
    taken = 0
    for _ in range(4000):
        payload, size = rng.choice(origins)
        damaged = damage(payload, rng)
        ours = refused_or(partial(read_here, damaged, size))
        theirs = refused_or(partial(read_there, damaged, size))
        assert ours == theirs, (payload.hex(), damaged.hex(), size)
        taken += ours is not None
    assert 400 < taken < 3600


def damage(payload: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, most of them near the front, where the lengths are."""
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(min(len(data), rng.choice((12, 40, len(data)))))
        match rng.randrange(4):
            case 0:
                data[place] = rng.choice((0, 1, 2, 127, 128, 254, 255))
            case 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data.insert(place, rng.randrange(256))
            case _:
                del data[place]
                data = data or bytearray(1)
    return bytes(data)


def refused_or(read: Callable[[], bytes]) -> bytes | None:
    try:
        return read()
    except (CodecError, ValueError):
        return None


@pytest.mark.parametrize("title", BINARY)
def test_the_tables_of_binary_messages_are_the_structures(title: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([^|]+) \| ([^|]*)\|$", section(title), re.MULTILINE)
    fields = msgspec.inspect.type_info(BINARY[title])
    assert isinstance(fields, msgspec.inspect.StructType)
    assert fields.array_like
    assert [(int(index), name, kind) for index, name, kind, _ in rows] == [
        (index, field.encode_name, kind_of(field.type)) for index, field in enumerate(fields.fields)
    ]
    assert FIELDS[BINARY[title].__name__].split() == [name for _, name, _, _ in rows]
    for (_, name, _, text), field in zip(rows, fields.fields, strict=True):
        if not isinstance(field.type, msgspec.inspect.IntType) or name in {"num_examples", "num_steps"}:
            continue  # these two are read whatever they are, and answered
        assert field.type.ge == (1 if "at least 1" in text or "1 to 2^30" in text else 0), name
        assert field.type.le == (2**30 if "1 to 2^30" in text else 2**53 - 1), name


def kind_of(form: msgspec.inspect.Type) -> str:  # noqa: PLR0911 - one for each kind
    match form:
        case msgspec.inspect.LiteralType(values=(1,)) | msgspec.inspect.IntType():
            return "int"
        case msgspec.inspect.BytesType(min_length=int(least), max_length=most) if least == most:
            return f"bin, {least} bytes"
        case msgspec.inspect.BytesType(min_length=None):
            return "bin"
        case msgspec.inspect.StrType():
            return "str"
        case msgspec.inspect.FloatType():
            return "float"
        case msgspec.inspect.TupleType(item_types=items):
            return "array of " + " and ".join(map(kind_of, items))
        case msgspec.inspect.VarTupleType(item_type=item):
            return f"array of {kind_of(item)}"
    raise AssertionError(form)


def test_the_document_knows_every_binary_message() -> None:
    assert set(BINARY.values()) == set(Binary.__subclasses__())


def test_the_document_knows_every_json_message() -> None:
    assert set(re.findall(r"^- \*\*(\w+)\*\*", section("JSON messages"), re.MULTILINE)) == set(READABLE)


@pytest.mark.parametrize("name", READABLE)
def test_the_json_messages_are_the_structures(name: str) -> None:
    text = section("JSON messages")
    (described,) = re.findall(rf"^- \*\*{name}\*\*: (.*?)(?=^- |\Z)", text, re.MULTILINE | re.DOTALL)
    structure = msgspec.inspect.type_info(READABLE[name])
    assert isinstance(structure, msgspec.inspect.StructType)
    assert structure.fields[0].encode_name == "format"
    fields = [field.encode_name for field in structure.fields[1:]]
    values = {value for field in structure.fields[1:] for value in values_of(field.type)}
    if name.endswith("Presence"):
        values.add("offline")
    words = re.findall(r"`(\w+)`", described)
    assert [word for word in dict.fromkeys(words) if word in fields] == fields
    assert set(words) == {*fields, *values}
    required = [field.encode_name for field in structure.fields if field.required]
    last = re.findall(rf"after\s`(\w+)`\sin\s(?:\w+\sand\s)?{name}\b", text.split("Text has")[0])
    assert required == (fields[: fields.index(last[0]) + 1] if last else fields)


def values_of(form: msgspec.inspect.Type) -> set[str]:
    """The texts that a field may have, when these are all, and the keys of an object within."""
    match form:
        case msgspec.inspect.LiteralType(values=values):
            return set(map(str, values))
        case msgspec.inspect.UnionType(types=forms):
            return {value for each in forms for value in values_of(each)}
        case msgspec.inspect.StructType(fields=fields):
            return {field.encode_name for field in fields}
    return set()


def test_the_layouts_are_named_as_in_the_package() -> None:
    rows = re.findall(r"^\| (\d) \| (\w+) \|", section("Layouts"), re.MULTILINE)
    assert [(name.upper(), int(layout)) for layout, name in rows] == [
        (name, getattr(payload_module, name))
        for name in ("ZEROS", "FLOAT32", "FLOAT16", "INT8", "NIBBLES", "TRITS", "SPARSE", "SPLIT", "RICE")
    ]


UNREADABLE = {
    "another format": [2, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], b""],
    "too few elements": [1, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, []],
    "sequence 0": [1, "n", 0, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], b""],
    "a short digest": [1, "n", 1, RUN[:7], 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], b""],
    "a negative version": [1, "n", 1, RUN, -1, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], b""],
    "a large version": [1, "n", 1, RUN, 2**53, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], b""],
    "a long score": [1, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0, 0], 0.5, [], b""],
    "a short class score": [1, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [[0.0]], b""],
    "too many class scores": [1, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [[0.0, 0]] * 257, b""],
    "text as payload": [1, "n", 1, RUN, 0, 1, 1, 0.5, 2.0, [0.0, 0], 0.5, [], "text"],
    "a map": {"format": 1},
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_both_refuse_what_the_document_forbids(name: str) -> None:
    data = msgspec.msgpack.encode(UNREADABLE[name])
    with pytest.raises(ValueError, match=r"departs|zip"):
        Reader(data).message("ClientUpdate")
    with pytest.raises(WireError):
        unpack(ClientUpdate, data)


def test_both_ignore_elements_that_they_do_not_know() -> None:
    update = client_update(b"payload")
    longer = [*msgspec.to_builtins(update, builtin_types=(bytes,)), {"new": [None]}, msgspec.msgpack.Ext(1, b"x")]
    data = msgspec.msgpack.encode(longer)
    assert unpack(ClientUpdate, data) == update
    assert Reader(data).message("ClientUpdate") == Reader(pack(update)).message("ClientUpdate")


def test_both_refuse_chunks_that_do_not_fit() -> None:
    data = bytes(range(250))
    chunks = list(cut(data, 100))
    forged = msgspec.structs.replace(unpack(Chunk, chunks[2]), data=bytes(51))
    with pytest.raises(ValueError, match="departs"):
        join_chunks([*chunks[:2], pack(forged)])
    with pytest.raises(WireError, match="51 bytes"):
        check_chunk(forged, MAX_OBJECT_BYTES)
    altered = msgspec.structs.replace(forged, data=bytes(50))
    for wrong in ([*chunks[:2], pack(altered)], chunks[:2], [*chunks[:2], *cut(data, 101)], []):
        with pytest.raises(ValueError, match=r"departs|unpack"):
            join_chunks(wrong)
    largest = Chunk(digest=RUN, total_bytes=2**30, chunk_bytes=2**30, index=2**53 - 1, data=bytes(70_000))
    assert len(pack(largest)) <= 70_000 + int(re.findall(r"at most (\d+) bytes of a message", DOCUMENT)[0])


def test_the_bundle_s_tables_are_those_of_the_package() -> None:
    text = section("Task bundle")
    assert re.findall(r"^\| `([\w.]+)` \| [^|]* \|$", text.partition("The graphs use")[0], re.MULTILINE) == [
        *SECTION_NAMES
    ]
    tags = [msgspec.inspect.type_info(kind).tag for kind in get_args(Target)]  # type: ignore[attr-defined]
    assert list(dict.fromkeys(re.findall(r"^\| target `(\w+)`", text, re.MULTILINE))) == tags
    fields = set(Manifest.__struct_fields__) - {"format", "producer", "description", "optimizer", "optimizer_state"}
    assert {field for field in fields if f"`{field}" not in text} == set()
