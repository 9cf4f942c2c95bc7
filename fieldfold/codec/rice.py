"""Lists of ascending positions, each gap as a quotient in unary and a remainder of few bits.

Golomb, Run-length encodings, 1966; Rice, Some practical universal noiseless coding techniques, 1979. Positions of
independent elements have geometric gaps, which this comes within two per cent of, without a table to send first: in
a payload of a few hundred bytes an entropy coder's table is a tenth of it. The number of remainder bits, the width,
is chosen anew for every 64 gaps, so that it follows a density which changes from tensor to tensor.

All of it is done by columns: bit 0 of every remainder, then bit 1 and so on, so that numpy needs no loop over gaps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fieldfold.codec.streams import PayloadReader, Symbols, damaged, varint

_BLOCK = 64
_MAX_WIDTH = 15  # four bits
_RUN_BYTES = 1 << 13


def pack_bits(bits: NDArray[np.bool_] | Symbols) -> bytes:
    """Bits (k,) to ceil(k / 8) bytes, the first in the lowest bit."""
    return np.packbits(bits, bitorder="little").tobytes()


def read_bits(reader: PayloadReader, count: int) -> Symbols:
    """The `count` bits that `pack_bits` packed, as 0 and 1."""
    return np.unpackbits(np.frombuffer(reader.take(-(-count // 8)), np.uint8), count=count, bitorder="little")


def _best_widths(gaps: NDArray[np.int32]) -> Symbols:
    """For every block of gaps (k,) the width that makes it shortest: (ceil(k / 64),)."""
    firsts = np.arange(0, gaps.size, _BLOCK)
    members = np.diff(firsts, append=gaps.size)
    widths: Symbols = np.zeros(firsts.size, np.uint8)
    shortest = np.add.reduceat(gaps, firsts, dtype=np.int64)
    quotients = gaps.copy()
    for width in range(1, _MAX_WIDTH + 1):
        np.right_shift(quotients, 1, out=quotients)
        bits = np.add.reduceat(quotients, firsts, dtype=np.int64) + width * members
        shorter = bits < shortest
        if not shorter.any():
            break
        widths[shorter] = width
        shortest[shorter] = bits[shorter]
    return widths


def write_positions(positions: NDArray[np.int32]) -> list[bytes]:
    """Ascending positions (k,) as pieces of a payload."""
    if positions.size == 0:
        return [varint(0)]
    gaps = np.diff(positions, prepend=np.int32(-1)) - np.int32(1)
    widths = _best_widths(gaps)
    nibbles = np.append(widths, np.zeros(widths.size % 2, np.uint8))
    each = np.repeat(widths, _BLOCK)[: gaps.size]
    columns = [gaps[each > bit] >> np.int32(bit) & np.int32(1) for bit in range(int(widths.max()))]
    ends = np.cumsum((gaps >> each) + 1, dtype=np.int64) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.bool_)
    unary[ends] = True
    quotients = pack_bits(unary)
    return [
        varint(positions.size),
        (nibbles[0::2] | nibbles[1::2] << np.uint8(4)).tobytes(),
        pack_bits(np.concatenate([column.astype(np.uint8) for column in columns])) if columns else b"",
        varint(len(quotients)),
        quotients,
    ]


def read_positions(reader: PayloadReader, size: int) -> NDArray[np.int32]:
    """The ascending positions below `size` that `write_positions` wrote.

    Raises:
        CodecError: when the payload is damaged.
    """
    count = reader.varint()
    if count > size:
        raise damaged("a list is longer than what it counts")
    if count == 0:
        return np.empty(0, np.int32)
    widths = _read_widths(reader, -(-count // _BLOCK))
    absent = widths.size * _BLOCK - count
    num_low = int(widths.sum(dtype=np.int64)) * _BLOCK - absent * int(widths[-1])
    if num_low > size:
        raise damaged("its gaps have more low bits than there are places")
    low = read_bits(reader, num_low)
    blocks = np.zeros((widths.size, _BLOCK), np.int32)
    gaps: NDArray[np.int32] = blocks.reshape(-1)[:count]
    _read_quotients(reader, gaps, size)
    if (blocks.max(axis=1).astype(np.int64) << widths).max() > size:
        raise damaged("a position lies behind the last parameter")
    blocks <<= widths[:, None]
    blocks |= _remainders(low, widths, absent)
    if int(gaps.sum(dtype=np.int64)) + count > size:
        raise damaged("a position lies behind the last parameter")
    gaps += 1
    np.cumsum(gaps, out=gaps)
    gaps -= 1
    return gaps


def _read_widths(reader: PayloadReader, num_blocks: int) -> Symbols:
    packed = np.frombuffer(reader.take(-(-num_blocks // 2)), np.uint8)
    return np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:num_blocks]


def _remainders(low: Symbols, widths: Symbols, absent: int) -> NDArray[np.uint16]:
    """The columns of low bits as numbers (blocks, 64), whole blocks at a time; the last block lacks `absent` gaps."""
    remainders = np.zeros((widths.size, _BLOCK), np.uint16)
    taken, narrowest = 0, int(widths.min())
    for bit in range(int(widths.max())):
        wider = np.flatnonzero(widths > bit)
        if absent and widths[-1] > bit:
            wider = wider[:-1]
        column = low[taken : taken + wider.size * _BLOCK].reshape(-1, _BLOCK)
        taken += column.size
        bits = np.left_shift(column, bit, dtype=np.uint16)
        if bit < narrowest:
            remainders[: wider.size] |= bits
        else:
            remainders[wider] |= bits
        if absent and widths[-1] > bit:
            last = low[taken : taken + _BLOCK - absent]
            taken += last.size
            remainders[-1, : last.size] |= np.left_shift(last, bit, dtype=np.uint16)
    return remainders


def _read_quotients(reader: PayloadReader, quotients: NDArray[np.int32], size: int) -> None:
    """Fills `quotients` (k,) with numbers in unary: as many zeros, then a one. By runs that stay in cache."""
    num_bytes = reader.varint()
    if num_bytes > -(-size // 8):
        raise damaged("a position lies behind the last parameter")
    unary = np.frombuffer(reader.take(num_bytes), np.uint8)
    filled, before = 0, -1
    for start in range(0, num_bytes, _RUN_BYTES):
        bits = np.unpackbits(unary[start : start + _RUN_BYTES], bitorder="little")
        ends = np.flatnonzero(bits.view(np.bool_))
        run = quotients[filled : filled + ends.size]
        if run.size < ends.size:
            break
        if ends.size:
            run[0] = 8 * start + ends[0] - before
            np.subtract(ends[1:], ends[:-1], out=run[1:], casting="unsafe")
            before = 8 * start + int(ends[-1])
            filled += ends.size
    if filled != quotients.size or before < 8 * num_bytes - 8:
        raise damaged("a list has another number of quotients than it claims")
    quotients -= 1
