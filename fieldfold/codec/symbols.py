"""The layouts of quantised levels: sparse, Rice, base-3 digits, nibbles. Whoever encodes keeps the smallest.

All four start with the step and the three offsets, and send a code that does not fit its symbol as the
largest symbol, with what is above it in an overflow stream of varints. That stream has at most one byte for
eight parameters, so that reading a hostile one stays cheap. With symbols up to 255 no error target from 1e-3 needs
more: elements beyond level 128 hold so much energy that there are at most 0.03 n of them. Nibbles are used where
few enough levels need an escape.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldfold.codec.delta import Listed
from fieldfold.codec.floats import checked_step
from fieldfold.codec.quantise import MAX_LEVEL, OFFSET_SCALE, Quantised
from fieldfold.codec.rice import pack_bits, read_bits, read_positions, write_positions
from fieldfold.codec.streams import (
    Parts,
    PayloadReader,
    Symbols,
    damaged,
    pack_overflow,
    stream,
    unpack_overflow,
)
from fieldfold.params import Vector

_HEADER = struct.Struct("<f3b")
_ESCAPE = 255
_NIBBLE_ESCAPE = 15
_TRITS = 5
_TRIT_WEIGHTS = (1, 3, 9, 27, 81)
_PARAMS_PER_OVERFLOW_BYTE = 8
_MAX_OVERFLOW_BYTES = 4
_LOOKUP_BLOCK = 1 << 15
_SIGN_BIT = 31
_RUN = 1 << 16


class _Scale(NamedTuple):
    """What turns levels back into values."""

    step: np.float32
    offsets: Vector  # (4,) added to a magnitude of 0, 1, 2 and above

    def values(self, levels: NDArray[np.integer]) -> Vector:
        """`sign * (|level| + offset) * step`, each operation rounded once to float32."""
        magnitudes = np.abs(levels)
        values: Vector = magnitudes.astype(np.float32) + self.offsets[np.minimum(magnitudes, 3)]
        values *= self.step
        return np.negative(values, out=values, where=levels < 0)


def _read_scale(reader: PayloadReader) -> _Scale:
    step, *offsets = reader.unpack(_HEADER)
    if min(offsets) == -OFFSET_SCALE:
        raise damaged("an offset is out of bounds")
    return _Scale(checked_step(step), np.array([0, *offsets], np.float32) / np.float32(OFFSET_SCALE))


class _Entries(NamedTuple):
    """A run of non-zero levels; whoever lays them out goes by runs, so that what it computes stays in cache."""

    start: int
    before: int  # the position before the first, -1 where there is none
    positions: NDArray[np.int32]
    codes: NDArray[np.int32]  # level 1 is 0, then -1, 2, -2, ...


def _runs(quantised: Quantised) -> Iterator[_Entries]:
    for start in range(0, quantised.positions.size, _RUN):
        positions = quantised.positions[start : start + _RUN]
        levels = quantised.levels[start : start + _RUN].astype(np.int32)
        before = int(quantised.positions[start - 1]) if start else -1
        yield _Entries(start, before, positions, 2 * np.abs(levels) - 2 + (levels < 0))


def _with_escapes(codes: NDArray[np.int32], escape: int) -> tuple[Symbols, bytes]:
    """Codes as symbols of at most `escape`, and the overflow of those that reach it."""
    escaped = codes[codes >= escape]
    return np.minimum(codes, escape).astype(np.uint8), pack_overflow(escaped - escape)


def _read_escaped(
    reader: PayloadReader,
    count: int,
    num_params: int,
    values_of: Callable[[NDArray[np.int32]], Vector],
) -> Vector:
    """The values of `count` codes from a symbol stream and its overflow stream."""
    symbols = np.frombuffer(reader.stream(count, exact=True), np.uint8)
    values = np.append(values_of(np.arange(_ESCAPE, dtype=np.int32)), np.float32(0))[symbols]
    escaped = np.flatnonzero(symbols == _ESCAPE)
    values[escaped] = values_of(_read_overflow(reader, escaped.size, num_params) + np.int32(_ESCAPE))
    return values


def _read_large(reader: PayloadReader, count: int, num_params: int, scale: _Scale) -> Vector:
    """The values of `count` magnitudes beyond 1."""
    return _read_escaped(reader, count, num_params, lambda codes: scale.values(_check_levels(codes + np.int32(2))))


def _read_overflow(reader: PayloadReader, count: int, num_params: int) -> NDArray[np.int32]:
    return unpack_overflow(reader.stream(num_params // _PARAMS_PER_OVERFLOW_BYTE), count)


def _write_gaps(positions: NDArray[np.int32], before: int) -> Symbols:
    """How many are skipped before each position, a byte each; 255 skips 255 and goes on."""
    gaps = np.diff(positions, prepend=np.int32(before)) - np.int32(1)
    if gaps.size == 0 or gaps.max() < _ESCAPE:
        return gaps.astype(np.uint8)
    lengths = gaps // _ESCAPE + 1
    symbols = np.full(int(lengths.sum(dtype=np.int64)), _ESCAPE, np.uint8)
    symbols[np.cumsum(lengths, dtype=np.int64) - 1] = gaps % _ESCAPE
    return symbols


def _read_gaps(reader: PayloadReader, size: int) -> NDArray[np.int32]:
    """Ascending positions below `size`."""
    symbols = np.frombuffer(reader.stream(size), np.uint8)
    placed = symbols != _ESCAPE
    if int(symbols.sum(dtype=np.int64)) + int(np.count_nonzero(placed)) > size:
        raise damaged("a position lies behind the last parameter")
    steps = symbols.astype(np.int32)
    steps += placed
    np.cumsum(steps, out=steps)
    positions: NDArray[np.int32] = steps[placed]
    positions -= 1
    return positions


def _lookup(table: Vector, symbols: Symbols, num_params: int) -> Vector:
    """Row `table[symbol]` for each symbol, joined and cut to `num_params`; in blocks that stay in cache."""
    width = table.shape[1]
    values = np.empty((symbols.size, width), np.float32)
    for start in range(0, symbols.size, _LOOKUP_BLOCK):
        stop = start + _LOOKUP_BLOCK
        np.take(table, symbols[start:stop], axis=0, out=values[start:stop], mode="clip")
    return values.reshape(-1)[:num_params]


def _padded(num_params: int, group: int) -> Symbols:
    return np.zeros(-(-num_params // group) * group, np.uint8)


def _check_levels(magnitudes: NDArray[np.int32]) -> NDArray[np.int32]:
    if magnitudes.size and magnitudes.max() > MAX_LEVEL:
        raise damaged("a level is out of bounds")
    return magnitudes


def _unfold(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Code 0 is level 1, then -1, 2, -2, ..."""
    magnitudes = _check_levels((codes >> 1) + 1)
    return np.where(codes & 1, -magnitudes, magnitudes)


def _streams(quantised: Quantised, *raw: list[bytes]) -> Parts:
    scale = _HEADER.pack(quantised.step, *quantised.offsets)
    return [scale, *(part for pieces in raw for part in stream(b"".join(pieces)))]


def write_sparse(quantised: Quantised) -> Parts:
    """Layout 6: gaps between the non-zero levels, and their codes."""
    gaps, symbols, overflow = Parts(), Parts(), Parts()
    for run in _runs(quantised):
        gaps.append(_write_gaps(run.positions, run.before).tobytes())
        fitting, rest = _with_escapes(run.codes, _ESCAPE)
        symbols.append(fitting.tobytes())
        overflow.append(rest)
    return _streams(quantised, gaps, symbols, overflow)


def read_sparse(reader: PayloadReader, num_params: int) -> Listed:
    """The vector (n,) that `write_sparse` describes.

    Raises:
        CodecError: when the payload is damaged.
    """
    scale = _read_scale(reader)
    positions = _read_gaps(reader, num_params)
    values = _read_escaped(reader, positions.size, num_params, lambda codes: scale.values(_unfold(codes)))
    return Listed(positions, values)


def write_rice(quantised: Quantised) -> Parts:
    """Layout 8: positions of the non-zero levels as Rice-coded gaps, their signs, and then those beyond 1 again."""
    magnitudes = np.abs(quantised.levels.astype(np.int32))
    large = np.flatnonzero(magnitudes > 1).astype(np.int32)
    fitting, rest = _with_escapes(magnitudes[large] - 2, _ESCAPE)
    return [
        _HEADER.pack(quantised.step, *quantised.offsets),
        *write_positions(quantised.positions),
        pack_bits(quantised.levels < 0),
        *write_positions(large),
        *stream(fitting.tobytes()),
        *stream(rest),
    ]


def read_rice(reader: PayloadReader, num_params: int) -> Listed:
    """The vector (n,) that `write_rice` describes.

    Raises:
        CodecError: when the payload is damaged.
    """
    scale = _read_scale(reader)
    positions = read_positions(reader, num_params)
    signs = read_bits(reader, positions.size).astype(np.uint32)
    large = read_positions(reader, positions.size)
    values = np.full(positions.size, scale.values(np.array([1]))[0])
    values[large] = _read_large(reader, large.size, num_params, scale)
    signs <<= np.uint32(_SIGN_BIT)
    values.view(np.uint32)[:] ^= signs
    return Listed(positions, values)


def write_trits(quantised: Quantised) -> Parts:
    """Layout 5: a base-3 digit for each element (0, level > 0, level < 0), five to a byte.

    Levels beyond 1 follow as gaps, counted over the non-zero elements only, and codes of |level| - 2.
    """
    digits = _padded(quantised.num_params, _TRITS)
    gaps, symbols, overflow = Parts(), Parts(), Parts()
    last = -1
    for run in _runs(quantised):
        digits[run.positions] = 1 + (run.codes & 1)
        large = np.flatnonzero(run.codes > 1).astype(np.int32)
        gaps.append(_write_gaps(large + np.int32(run.start), last).tobytes())
        last = run.start + int(large[-1]) if large.size else last
        fitting, rest = _with_escapes((run.codes[large] >> 1) - 1, _ESCAPE)
        symbols.append(fitting.tobytes())
        overflow.append(rest)
    groups = digits.reshape(-1, _TRITS)
    packed = sum((groups[:, i] * np.uint8(w) for i, w in enumerate(_TRIT_WEIGHTS)), np.uint8(0))
    return _streams(quantised, [np.asarray(packed).tobytes()], gaps, symbols, overflow)


def read_trits(reader: PayloadReader, num_params: int) -> Vector:
    """The vector (n,) that `write_trits` describes.

    Raises:
        CodecError: when the payload is damaged.
    """
    scale = _read_scale(reader)
    packed = np.frombuffer(reader.stream(-(-num_params // _TRITS), exact=True), np.uint8)
    if packed.size and packed.max() >= 3**_TRITS:
        raise damaged("a byte holds no base-3 digits")
    digits = np.arange(3**_TRITS)[:, None] // np.array(_TRIT_WEIGHTS) % 3
    decoded = _lookup(scale.values(np.array([0, 1, -1]))[digits], packed, num_params)
    large = _read_gaps(reader, int(np.count_nonzero(decoded)))
    values = _read_large(reader, large.size, num_params, scale)
    _enlarge(decoded, large, values)
    return decoded


def _enlarge(decoded: Vector, large: NDArray[np.int32], values: Vector) -> None:
    """Gives the `large`-th non-zero elements their values (both (k,)); each keeps its sign. In blocks."""
    passed = taken = 0
    for start in range(0, decoded.size, _RUN):
        if taken == large.size:
            return
        block = decoded[start : start + _RUN]
        nonzero = np.flatnonzero(block != 0)
        passed += nonzero.size
        end = int(np.searchsorted(large, passed))
        mine = nonzero[large[taken:end] - (passed - nonzero.size)]
        block[mine] = np.copysign(values[taken:end], block[mine])
        taken = end


def suits_nibbles(quantised: Quantised) -> bool:
    """Whether so few levels need an escape that their overflow is certain to be in bounds."""
    escaped = sum(int(np.count_nonzero(run.codes + 1 >= _NIBBLE_ESCAPE)) for run in _runs(quantised))
    return escaped * _MAX_OVERFLOW_BYTES <= quantised.num_params // _PARAMS_PER_OVERFLOW_BYTE


def write_nibbles(quantised: Quantised) -> Parts:
    """Layout 4: four bits an element, 0 for level 0 and code + 1 for the others, two to a byte."""
    nibbles = _padded(quantised.num_params, 2)
    overflow = Parts()
    for run in _runs(quantised):
        nibbles[run.positions], rest = _with_escapes(run.codes + 1, _NIBBLE_ESCAPE)
        overflow.append(rest)
    packed = nibbles[0::2] | nibbles[1::2] << np.uint8(4)
    return _streams(quantised, [packed.tobytes()], overflow)


def read_nibbles(reader: PayloadReader, num_params: int) -> Vector:
    """The vector (n,) that `write_nibbles` describes.

    Raises:
        CodecError: when the payload is damaged.
    """
    scale = _read_scale(reader)
    packed = np.frombuffer(reader.stream(-(-num_params // 2), exact=True), np.uint8)
    single = np.concatenate([[0], _unfold(np.arange(_NIBBLE_ESCAPE, dtype=np.int32))])
    values = scale.values(single)
    values[_NIBBLE_ESCAPE] = np.nan  # marks the escapes until the overflow has filled them
    both = np.arange(256)
    decoded = _lookup(values[np.stack([both & 15, both >> 4], axis=1)], packed, num_params)
    escaped = np.flatnonzero(np.isnan(decoded))
    codes = _read_overflow(reader, escaped.size, num_params) + np.int32(_NIBBLE_ESCAPE - 1)
    decoded[escaped] = scale.values(_unfold(codes))
    return decoded
