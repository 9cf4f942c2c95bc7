"""The two primitives every payload is made of: varints and length-checked, zstd-compressed byte streams.

A stream is `varint raw_length`, then unless that is 0 `varint stored_length` and that many bytes. Equal
lengths mean stored as it is; a smaller stored length means a zstd frame without its four magic bytes.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray

from fieldfold.errors import CodecError

Symbols: TypeAlias = NDArray[np.uint8]

Parts: TypeAlias = list[bytes]
"""Pieces of a payload, joined once, when all are there."""

_FORMAT = zstandard.FORMAT_ZSTD1_MAGICLESS

MAX_WINDOW_BYTES = 1 << 23
"""Above what any level up to 19 uses on these streams; bounds what a hostile frame makes zstd allocate."""

_SMALL_STREAM_BYTES = 1 << 13
_MIN_COMPRESSIBLE_BYTES = 16
_MAX_VARINT_BYTES = 5
_MAX_OVERFLOW_BYTES = 4
_OVERFLOW_SHIFTS = np.arange(0, 7 * _MAX_OVERFLOW_BYTES, 7)


def damaged(what: str) -> CodecError:
    """The error for a payload that breaks the format."""
    return CodecError(f"the payload is damaged: {what}", "discard it and have the sender encode again")


def _parameters(size: int) -> list[zstandard.ZstdCompressionParameters]:
    """What to try on a stream of `size` bytes.

    Symbols are nearly independent, so matching rarely pays: a search for long repeats only leaves the
    work to the entropy coder, which is both the fastest and mostly the smallest. Small streams can
    afford a thorough search beside it, which saves a twelfth of payloads of a few hundred bytes.
    """
    bare = {"format": _FORMAT, "write_content_size": 0, "write_checksum": 0, "write_dict_id": 0}
    entropy = zstandard.ZstdCompressionParameters.from_level(
        3, source_size=size, strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, chain_log=6, **bare
    )
    if size > _SMALL_STREAM_BYTES:
        return [entropy]
    return [entropy, zstandard.ZstdCompressionParameters.from_level(19, source_size=size, **bare)]


def compress(raw: bytes) -> bytes:
    """The smallest zstd frame of `raw` without its magic, or `raw` itself when no frame is smaller."""
    best = raw
    if len(raw) < _MIN_COMPRESSIBLE_BYTES:
        return best
    for parameters in _parameters(len(raw)):
        best = min(best, zstandard.ZstdCompressor(compression_params=parameters).compress(raw), key=len)
    return best


def _decompress(frame: memoryview, raw_length: int) -> bytes:
    try:
        # A frame may claim any content size, and decompress() would allocate what it claims.
        claimed = zstandard.get_frame_parameters(frame, format=_FORMAT)
        if claimed.content_size not in {raw_length, zstandard.CONTENTSIZE_UNKNOWN} or claimed.dict_id:
            raise damaged("a zstd frame claims another length than its stream")
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES, format=_FORMAT)
        raw: bytes = decompressor.decompress(frame, max_output_size=raw_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise damaged(f"zstd says {error}") from None
    if len(raw) != raw_length:
        raise damaged("a stream is shorter than it claims")
    return raw


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the top bit set on all bytes but the last."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def stream(raw: bytes) -> Parts:
    """`raw` as one stream, compressed where that is smaller."""
    if not raw:
        return [varint(0)]
    stored = compress(raw)
    return [varint(len(raw)) + varint(len(stored)), stored]


def pack_overflow(values: NDArray[np.integer]) -> bytes:
    """Non-negative integers below 2^28 as varints, one after the other."""
    wide = values.astype(np.int64)[:, None]
    more = (wide >> (_OVERFLOW_SHIFTS + 7)) > 0
    digits: Symbols = ((wide >> _OVERFLOW_SHIFTS) & 0x7F | np.where(more, 0x80, 0)).astype(np.uint8)
    used: NDArray[np.bool_] = np.concatenate([np.ones((len(values), 1), np.bool_), more[:, :-1]], axis=1)
    packed: Symbols = digits[used]
    return packed.tobytes()


def unpack_overflow(raw: bytes | memoryview, count: int) -> NDArray[np.int32]:
    """The `count` integers that `raw` holds as varints of at most 4 bytes.

    Raises:
        CodecError: when it holds another number of them.
    """
    digits = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(digits < 0x80).astype(np.int32)
    if ends.size != count or (digits.size and digits[-1] >= 0x80):
        raise damaged("the overflow stream does not match the escape codes")
    if count == 0:
        return np.empty(0, np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends[:-1] + np.int32(1)])
    lengths = ends - starts + np.int32(1)
    if lengths.max() > _MAX_OVERFLOW_BYTES:
        raise damaged("an overflow value is out of bounds")
    values = np.zeros(count, np.int32)
    for place in range(_MAX_OVERFLOW_BYTES):
        longer = np.flatnonzero(lengths > place)
        values[longer] |= (digits[starts[longer] + place] & 0x7F).astype(np.int32) << 7 * place
    return values


class PayloadReader:
    """Walks over a payload once; every read is checked against what is left of it.

    Raises:
        CodecError: from every method, when the payload ends early or breaks a bound.
    """

    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = memoryview(payload)
        self._offset = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        end = self._offset + size
        if end > len(self._payload):
            raise damaged("it ends early")
        taken = self._payload[self._offset : end]
        self._offset = end
        return taken

    def take_rest(self) -> memoryview:
        """Everything that is left."""
        return self.take(len(self._payload) - self._offset)

    def varint(self) -> int:
        """A varint of at most 5 bytes."""
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            digit = self.take(1)[0]
            value |= (digit & 0x7F) << shift
            if digit < 0x80:
                return value
        raise damaged("a length is out of bounds")

    def unpack(self, fmt: struct.Struct) -> tuple[int | float, ...]:
        """Fixed-width fields."""
        return fmt.unpack(self.take(fmt.size))

    def stream(self, max_raw_length: int, *, exact: bool = False) -> bytes | memoryview:
        """One stream of at most (`exact`: just) `max_raw_length` bytes; nothing larger is allocated."""
        raw_length = self.varint()
        if raw_length > max_raw_length or (exact and raw_length != max_raw_length):
            raise damaged(f"a stream of {raw_length} bytes stands where {max_raw_length} are possible")
        if raw_length == 0:
            return b""
        stored_length = self.varint()
        if stored_length > raw_length:
            raise damaged("a stored stream is longer than its content")
        stored = self.take(stored_length)
        return stored if stored_length == raw_length else _decompress(stored, raw_length)

    def end(self) -> None:
        """Checks that nothing is left."""
        if self._offset != len(self._payload):
            raise damaged("bytes follow its end")
