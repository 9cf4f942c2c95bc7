"""The wire form of Protocol Buffers, read without a schema: as much as it takes to look into an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class MalformedError(ValueError):
    """The bytes are no message; the text says where."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field's number and value: an integer for varints, a view of the bytes for everything else.

    Raises:
        MalformedError: when the message is cut off or uses a wire type that ONNX does not.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise MalformedError(f"wire type {kind} at byte {at}")
        if size > end - at:
            raise MalformedError(f"cut off at byte {at}")
        yield number, message[at : at + size]
        at += size


def packed_varints(values: memoryview) -> list[int]:
    """The integers of a packed repeated field.

    Raises:
        MalformedError: when the last is cut off.
    """
    found, at = [], 0
    while at < len(values):
        value, at = _varint(values, at)
        found.append(value)
    return found


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise MalformedError(f"no number at byte {at}")
