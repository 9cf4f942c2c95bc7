"""Payloads for anybody's reader of docs/WIRE_FORMAT.md: `python -m tests.codec.payload_vectors` writes vectors/.

Every payload is put together here by hand, from the tables of the document: no encoder has a part in it, and zstd
frames are written out, so that neither a better encoder nor another zstd changes a byte. What the payloads mean is
what the reader says that was written from the document.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.wire.independent_reader import Reader

FOLDER = Path(__file__).with_name("vectors")

ZEROS, FLOAT32, FLOAT16, INT8, NIBBLES, TRITS, SPARSE, SPLIT, RICE = range(9)
NAN, INFINITY = float("nan"), float("inf")


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def head(layout: int, num_params: int) -> bytes:
    return bytes([0x10 | layout]) + varint(num_params)


def step(value: float) -> bytes:
    return struct.pack("<f", value)


def scale(value: float, *offsets: int) -> bytes:
    return struct.pack("<f3b", value, *(offsets or (0, 0, 0)))


def stored(*raw: int) -> bytes:
    """A stream as it is."""
    return varint(len(raw)) + (varint(len(raw)) + bytes(raw) if raw else b"")


def framed(size: int, frame: str) -> bytes:
    """A stream of `size` bytes as a zstd frame without its magic."""
    data = bytes.fromhex(frame)
    return varint(size) + varint(len(data)) + data


def rice(count: int, widths: str, low: str, quotients: str) -> bytes:
    """A list of positions."""
    unary = bytes.fromhex(quotients)
    return varint(count) + bytes.fromhex(widths + low) + varint(len(unary)) + unary


NOTHING = stored()
"""An empty stream, or a list without positions."""

HUFFMAN = (
    "0000e5010072060b8844332121108af3e6bc602e40188618668ef67ecfd087473e4ab78a12acfc01bb1c6349ba8b53dc3c81a90a0400962a0a"
    "53f72c659658250f"
)
"""zstd: 120 bytes, most of them small, in a Huffman code."""

REPEATS = "00004d00001800010001007adc10"
"""zstd: 0, 1, 0, 1, ... 40 bytes, as a match."""

CHECKED = "24284d00001800010001007adc10c20d3319"
"""zstd: the same with its content size and a checksum."""

PAYLOADS: dict[str, bytes] = {
    "zeros": head(ZEROS, 130),
    "no parameters": head(ZEROS, 0),
    "float32": head(FLOAT32, 4) + stored(0, 0, 0xC2, 0x9E, 0, 0, 0x16, 0xC9, 0x80, 0, 1, 0x7F, 0x3F, 0x80, 0, 0x7F),
    "float32, compressed": head(FLOAT32, 10) + framed(40, REPEATS),
    "float16": head(FLOAT16, 4) + step(2.0**-13) + stored(0, 0, 0, 0x77, 0xF0, 0, 1, 0x77),
    "float16, a small step": head(FLOAT16, 3) + step(2.0**-38) + stored(6, 0xB6, 0xA8, 0xB6, 0x76, 0xE2),
    "int8": head(INT8, 4) + step(0.0078125) + stored(127, 0, 220, 0x80),
    "int8, compressed": head(INT8, 40) + step(0.1) + framed(40, REPEATS),
    "int8, a frame with its content size and a checksum": head(INT8, 40) + step(0.1) + framed(40, CHECKED),
    "nibbles, the example of the document": head(NIBBLES, 4) + scale(0.5) + stored(0xD0, 4) + NOTHING,
    "nibbles, an escape, and a last half that is ignored": (
        head(NIBBLES, 17)
        + scale(0.01, 12, -5, 127)
        + stored(0x21, 0xF3, 0x0E, 0, 0, 0, 0xA9, 0x87, 0xF5)
        + stored(0x85, 1)
    ),
    "trits, large levels, an escape, and digits that are ignored": (
        head(TRITS, 12) + scale(0.3, 55, -17, 3) + stored(34, 242, 237) + stored(1, 4) + stored(0, 255) + stored(9)
    ),
    "trits, compressed": head(TRITS, 198) + scale(0.3, 5, 0, 0) + framed(40, REPEATS) + NOTHING * 3,
    "sparse, long gaps and an escape": (
        head(SPARSE, 810)
        + scale(0.0005, -20, 64, -127)
        + stored(3, 255, 10, 0, 255, 20, 255)
        + stored(0, 3, 254, 255)
        + stored(0x87, 0x80, 0x01)
    ),
    "sparse, compressed": (
        head(SPARSE, 700) + scale(3e-5, -9, 0, 0) + framed(120, HUFFMAN) + framed(120, HUFFMAN) + NOTHING
    ),
    "split: three parameters and two buffers": (
        head(SPLIT, 5)
        + varint(3)
        + varint(11)
        + (head(INT8, 3) + step(0.5) + stored(1, 255, 0))
        + (head(FLOAT16, 2) + step(1.0) + stored(0, 0x40, 0x3C, 0xC1))
    ),
    "rice, the example of the document": (
        head(RICE, 4)
        + scale(0.5)
        + rice(2, "00", "", "06")
        + b"\x02"
        + rice(2, "00", "", "03")
        + stored(5, 0)
        + NOTHING
    ),
    "rice": (
        head(RICE, 10)
        + scale(0.25, -32, 0, 9)
        + rice(3, "01", "01", "25")
        + b"\x02"
        + rice(1, "00", "", "04")
        + stored(5)
        + NOTHING
    ),
    "rice, two widths and an escape": (
        head(RICE, 80)
        + scale(0.001, 7, -7, 70)
        + rice(70, "10", "25", "ff" * 8 + "eb")
        + bytes([0xA5] * 9)
        + rice(2, "04", "20", "21")
        + stored(0, 255)
        + stored(0xAC, 2)
    ),
    "rice, nothing listed": head(RICE, 6) + scale(1.0) + NOTHING * 4,
}

_ONE = scale(0.5)
_ALONE = b"\1\0\1\1\0"
"""A Rice-coded list of the first place, and the sign of what stands there."""

REFUSED: dict[str, bytes] = {
    "a NaN among float32": head(FLOAT32, 2) + stored(0, 0, 0, 0, 0, 0xC0, 0, 0x7F),
    "an infinite float16": head(FLOAT16, 2) + step(0.5) + stored(0, 0, 0, 0x7C),
    "a NaN step": head(INT8, 2) + step(NAN) + stored(0, 0),
    "an infinite step": head(INT8, 2) + step(INFINITY) + stored(0, 0),
    "a negative step": head(INT8, 2) + step(-1) + stored(0, 0),
    "a subnormal step": head(INT8, 2) + step(1e-40) + stored(0, 0),
    "an offset of -128": head(NIBBLES, 2) + scale(1, -128, 0, 0) + stored(0) + NOTHING,
    "too few bytes": head(INT8, 2) + step(0.5) + stored(0),
    "too many bytes": head(INT8, 2) + step(0.5) + stored(0, 0, 0),
    "a byte behind the end": head(ZEROS, 2) + b"\0",
    "a position past the end": head(SPARSE, 9) + _ONE + stored(9) + stored(0) + NOTHING,
    "gaps past the end": head(SPARSE, 300) + _ONE + stored(255, 255) + NOTHING * 2,
    "fewer codes than positions": head(SPARSE, 9) + _ONE + stored(0, 0) + stored(0) + NOTHING,
    "an escape without overflow": head(SPARSE, 9) + _ONE + stored(0) + stored(255) + NOTHING,
    "overflow without an escape": head(SPARSE, 9) + _ONE + stored(0) + stored(0) + stored(0),
    "an unfinished overflow": head(SPARSE, 9) + _ONE + stored(0) + stored(255) + stored(128),
    "an overflow of five bytes": head(SPARSE, 90) + _ONE + stored(0) + stored(255) + stored(128, 128, 128, 128, 1),
    "a level above 2^24": head(SPARSE, 90) + _ONE + stored(0) + stored(255) + stored(255, 255, 255, 127),
    "a byte that is not five digits": head(TRITS, 5) + _ONE + stored(243) + NOTHING * 3,
    "a gap past the non-zero": head(TRITS, 5) + _ONE + stored(1) + stored(1) + stored(0) + NOTHING,
    "a list longer than its places": head(RICE, 2) + _ONE + rice(3, "00", "", "07") + b"\0" + NOTHING * 3,
    "a listed position past the end": head(RICE, 2) + _ONE + rice(1, "00", "", "04") + b"\0" + NOTHING * 3,
    "more low bits than places": head(RICE, 9) + _ONE + rice(2, "05", "0000", "03") + b"\0" + NOTHING * 3,
    "fewer quotients than the list": head(RICE, 9) + _ONE + rice(2, "00", "", "01") + b"\0" + NOTHING * 3,
    "more quotients than the list": head(RICE, 9) + _ONE + rice(1, "00", "", "03") + b"\0" + NOTHING * 3,
    "a byte behind the quotients": head(RICE, 9) + _ONE + rice(1, "00", "", "0100") + b"\0" + NOTHING * 3,
    "a second list longer than the first": head(RICE, 9)
    + _ONE
    + _ALONE
    + rice(2, "00", "", "03")
    + stored(0, 0)
    + NOTHING,
    "no symbol for a large level": head(RICE, 9) + _ONE + _ALONE + rice(1, "00", "", "01") + NOTHING * 2,
    "an unknown layout": head(15, 2),
    "another format": b"\x20\x02",
    "a split within a split": head(SPLIT, 3) + varint(2) + varint(4) + head(SPLIT, 2) * 2 + head(ZEROS, 1),
    "a split of nothing": head(SPLIT, 2) + varint(0) + varint(2) + head(ZEROS, 0) + head(ZEROS, 2),
    "parts that do not add up": head(SPLIT, 3) + varint(2) + varint(2) + head(ZEROS, 2) + head(ZEROS, 2),
    "a length without end": head(FLOAT32, 2) + b"\x80" * 9,
    "a frame of another length": head(INT8, 39) + step(0.1) + framed(39, REPEATS),
    "a content size of another length": head(INT8, 39) + step(0.1) + framed(39, CHECKED),
    "a wrong checksum": head(INT8, 40) + step(0.1) + framed(40, CHECKED[:-2] + "00"),
    "a byte behind the frame": head(INT8, 40) + step(0.1) + framed(40, REPEATS + "00"),
}


def num_params(payload: bytes) -> int:
    """What a payload says it holds."""
    return Reader(payload[1:]).varint()


def documents() -> dict[str, str]:
    """The files by name."""
    payloads = [
        {"name": name, "payload": payload.hex(), "float32": floats(payload)} for name, payload in PAYLOADS.items()
    ]
    refused = [{"name": name, "payload": payload.hex()} for name, payload in REFUSED.items()]
    return {"payloads.json": _json(payloads), "refused.json": _json(refused)}


def floats(payload: bytes) -> str:
    """What a payload holds, as little-endian float32 in hex."""
    size = num_params(payload)
    return struct.pack(f"<{size}f", *Reader(payload).payload(size)).hex()


def _json(entries: object) -> str:
    return json.dumps(entries, indent=1) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
