"""The published vectors: what the package reads and refuses is what the document says."""

from __future__ import annotations

import json
import struct

import pytest

from fieldfold.codec import decode
from fieldfold.errors import CodecError
from tests.codec.payload_vectors import FOLDER, PAYLOADS, REFUSED, documents, num_params
from tests.wire.independent_reader import Reader

PUBLISHED = {
    name: {entry["name"]: entry for entry in json.loads((FOLDER / name).read_text())} for name in documents()
}


def test_the_files_are_what_the_script_writes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == documents()


def test_every_layout_is_shown() -> None:
    assert {payload[0] & 15 for payload in PAYLOADS.values()} == set(range(9))


@pytest.mark.parametrize("name", PAYLOADS)
def test_it_reads(name: str) -> None:
    entry = PUBLISHED["payloads.json"][name]
    payload, expected = bytes.fromhex(entry["payload"]), bytes.fromhex(entry["float32"])
    size = len(expected) // 4
    assert decode(payload, size).astype("<f4").tobytes() == expected
    assert struct.pack(f"<{size}f", *Reader(payload).payload(size)) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name: str) -> None:
    payload = bytes.fromhex(PUBLISHED["refused.json"][name]["payload"])
    with pytest.raises(CodecError) as refused:
        decode(payload, num_params(payload))
    assert refused.value.hint
    with pytest.raises((ValueError, struct.error)):
        Reader(payload).payload(num_params(payload))
