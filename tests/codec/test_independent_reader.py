"""A decoder written from docs/WIRE_FORMAT.md alone; it shares no code with the package it checks."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import zstandard

from fieldfold.codec import PROFILES, Profile, decode, encode

VECTORS = json.loads(Path(__file__).with_name("payload_vectors.json").read_text())


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def varint(self) -> int:
        value = shift = 0
        while True:
            digit = self.take(1)[0]
            value |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return value

    def float32(self) -> float:
        return float(struct.unpack("<f", self.take(4))[0])

    def stream(self) -> bytes:
        raw_length = self.varint()
        if raw_length == 0:
            return b""
        stored = self.take(self.varint())
        if len(stored) == raw_length:
            return stored
        frame = b"\x28\xb5\x2f\xfd" + stored
        return bytes(zstandard.ZstdDecompressor().decompress(frame, max_output_size=raw_length))


class Scale(NamedTuple):
    step: float
    offsets: tuple[int, int, int]

    def value(self, level: int) -> float:
        if level == 0:
            return 0.0
        size = abs(level)
        # Python's float64 holds the exact sum and product, so rounding once after each gives float32's.
        total = to_float32(size + self.offsets[min(size, 3) - 1] / 128)
        return to_float32(total * self.step) * (1 if level > 0 else -1)


def to_float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def read_scale(reader: Reader) -> Scale:
    return Scale(reader.float32(), struct.unpack("<3b", reader.take(3)))


def level_of(code: int) -> int:
    return -(code // 2 + 1) if code % 2 else code // 2 + 1


def positions_of(gaps: bytes) -> list[int]:
    positions, place = [], 0
    for gap in gaps:
        place += gap
        if gap < 255:
            positions.append(place)
            place += 1
    return positions


def read_codes(symbols: bytes | list[int], escape: int, overflow: Reader) -> list[int]:
    return [symbol + overflow.varint() if symbol == escape else symbol for symbol in symbols]


def read_nibbles(reader: Reader, n: int) -> list[float]:
    scale, packed = read_scale(reader), reader.stream()
    nibbles = [half for byte in packed for half in (byte & 15, byte >> 4)][:n]
    codes = read_codes(nibbles, 15, Reader(reader.stream()))
    return [scale.value(level_of(code - 1) if code else 0) for code in codes]


def read_trits(reader: Reader, n: int) -> list[float]:
    scale, packed = read_scale(reader), reader.stream()
    digits = [byte // 3**power % 3 for byte in packed for power in range(5)][:n]
    levels = [(0, 1, -1)[digit] for digit in digits]
    nonzero = [place for place, level in enumerate(levels) if level]
    gaps, symbols = reader.stream(), reader.stream()
    codes = read_codes(symbols, 255, Reader(reader.stream()))
    for place, code in zip(positions_of(gaps), codes, strict=True):
        levels[nonzero[place]] *= code + 2
    return [scale.value(level) for level in levels]


def read_sparse(reader: Reader, n: int) -> list[float]:
    scale, gaps, symbols = read_scale(reader), reader.stream(), reader.stream()
    values = [0.0] * n
    codes = read_codes(symbols, 255, Reader(reader.stream()))
    for place, code in zip(positions_of(gaps), codes, strict=True):
        values[place] = scale.value(level_of(code))
    return values


def read_planes(raw: bytes, n: int, fmt: str) -> list[float]:
    width = len(raw) // n
    elements = bytes(raw[plane * n + i] for i in range(n) for plane in range(width))
    return list(struct.unpack(f"<{n}{fmt}", elements))


def read_payload(payload: bytes) -> list[float]:
    reader = Reader(payload)
    version, layout = divmod(reader.take(1)[0], 16)
    assert version == 1
    n = reader.varint()
    if layout == 0:
        return [0.0] * n
    if layout == 1:
        return read_planes(reader.stream(), n, "f")
    if layout == 2:
        step = reader.float32()
        return [to_float32(half * step) for half in read_planes(reader.stream(), n, "e")]
    if layout == 3:
        step = reader.float32()
        return [to_float32(byte * step) for byte in struct.unpack(f"<{n}b", reader.stream())]
    if layout == 7:
        reader.varint()
        first = reader.take(reader.varint())
        return read_payload(first) + read_payload(reader.data)
    return {4: read_nibbles, 5: read_trits, 6: read_sparse}[layout](reader, n)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_the_published_vectors_read_the_same_everywhere(vector: dict[str, str]) -> None:
    payload, expected = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["float32"])
    assert np.array(read_payload(payload), "<f4").tobytes() == expected
    assert decode(payload, len(expected) // 4).astype("<f4").tobytes() == expected


def test_the_published_vectors_show_every_layout() -> None:
    assert {int(vector["payload"][1], 16) for vector in VECTORS} == set(range(8))


@pytest.mark.parametrize("size", [1, 2, 9, 500, 4001])
@pytest.mark.parametrize("shape", ["heavy tails", "gaussian", "spiky"])
def test_both_readers_agree_to_the_bit(size: int, shape: str) -> None:
    rng = np.random.default_rng(size)
    delta = (rng.standard_t(2.1, size) if shape == "heavy tails" else rng.normal(size=size)).astype(np.float32)
    if shape == "spiky":
        delta[:: max(size // 3, 1)] *= 500
    exact = [Profile(f"{target}", "dead_zone", error_target=target) for target in (0.001, 0.01, 0.1)]
    for profile in [*PROFILES.values(), *exact]:
        for num_trained in (None, size // 2):
            payload = encode(delta, profile, num_trained=num_trained)
            expected = np.array(read_payload(payload), np.float32)
            assert (decode(payload, size).view(np.uint32) == expected.view(np.uint32)).all()
