"""Deltas to payloads and back: the header, and which layout carries what.

    byte 0          format version in the high four bits, layout in the low four
    varint          number of parameters
    ...             what the layout says

docs/WIRE_FORMAT.md describes every layout byte by byte.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fieldfold.codec import floats, symbols
from fieldfold.codec.delta import NOTHING, Delta, Part
from fieldfold.codec.profile import DEFAULT_PROFILE, PROFILES, Profile, find_profile
from fieldfold.codec.quantise import (
    MAX_STEP,
    NEGLIGIBLE_PEAK,
    Quantised,
    dead_zone,
    peak_of,
    sparse_levels,
    uniform,
)
from fieldfold.codec.stochastic import stochastic
from fieldfold.codec.streams import Parts, PayloadReader, damaged, varint
from fieldfold.errors import CodecError
from fieldfold.params import Vector
from fieldfold.params.layout import MAX_PARAMS

FORMAT_VERSION: Final = 1

ZEROS, FLOAT32, FLOAT16, INT8, NIBBLES, TRITS, SPARSE, SPLIT, RICE = range(9)

_DENSE_SHARE = 1 / 16
"""Below this share of non-zero levels a layout that lists them was the smallest in every measurement."""

_LISTED_SHARE = 1 / 4
"""Above this share of non-zero levels bits for every position save a few per cent at most, and are slow to read."""

_WORTH_LISTING = 7 / 8
"""Plain bytes are several times faster than listed levels; they are only given up for an eighth of the size."""

_SAMPLED_ABOVE = 1 << 20
_PIECES, _PIECE = 16, 1 << 14
"""Above 2^20 parameters only the layout that is the smallest on 16 pieces of the vector is tried on all of it."""

_READERS: Mapping[int, Callable[[PayloadReader, int], Part]] = {
    ZEROS: lambda *_: NOTHING,
    FLOAT32: floats.read_float32,
    FLOAT16: floats.read_float16,
    INT8: floats.read_int8,
    NIBBLES: symbols.read_nibbles,
    TRITS: symbols.read_trits,
    SPARSE: symbols.read_sparse,
    RICE: symbols.read_rice,
}


def encode(
    delta: Vector,
    profile: str | Profile = DEFAULT_PROFILE,
    *,
    num_trained: int | None = None,
    seed: int | None = None,
) -> bytes:
    """The payload of `delta`, float32 of shape (n,).

    Args:
        delta: what to send; any finite values.
        profile: a name from `PROFILES`, or a Profile of your own.
        num_trained: elements from here on are buffers (a BatchNorm mean): they are sent as float16, since
            error feedback does not suit them and they must not share a step with the parameters. None when
            there are no buffers. `lossless` ignores it.
        seed: of the draws of profiles that round at random, a whole number from 0, another for every update of every
            node; equal seeds give equal bytes. None takes one from the system. Other profiles ignore it.

    Raises:
        CodecError: an element is NaN or infinite; the array is not one-dimensional float32; the profile
            does not exist; the seed is negative; a lossy profile meets an element above 2^100.
    """
    chosen = find_profile(profile)
    delta = _checked_delta(delta)
    if seed is None:
        seed = secrets.randbits(64)
    if seed < 0:
        raise CodecError(f"the seed is {seed}", "seeds are whole numbers from 0; give every update one of its own")
    trained = delta.size if num_trained is None else num_trained
    if not 0 <= trained <= delta.size:
        raise CodecError(f"num_trained is {trained}, the delta has {delta.size} elements")
    if chosen.method == "float32" or trained == delta.size:
        return _encode_whole(delta, chosen, seed)
    if trained == 0:
        return _encode_whole(delta, PROFILES["float16"])
    first = _encode_whole(delta[:trained], chosen, seed)
    second = _encode_whole(delta[trained:], PROFILES["float16"])
    return _head(SPLIT, delta.size) + varint(trained) + varint(len(first)) + first + second


def decode(payload: bytes, num_params: int) -> Vector:
    """The float32 vector of shape (num_params,) that `payload` holds, all finite; equal bits everywhere.

    Safe on bytes from anybody: beside the payload itself it holds at most 64 bytes a parameter and 16 MiB
    at any moment (about 5 bytes at the default profile), whatever the payload claims.

    Raises:
        CodecError: when the payload is damaged, of another version or of another number of parameters.
    """
    return decode_delta(payload, num_params).dense()


def decode_delta(payload: bytes, num_params: int) -> Delta:
    """The same without what is zero, where the payload lists only the rest.

    Raises:
        CodecError: as `decode`.
    """
    reader = PayloadReader(payload)
    layout = _read_head(reader, num_params)
    if layout != SPLIT:
        return Delta(num_params, ((slice(0, num_params), _decode_whole(reader, layout, num_params)),))
    trained = reader.varint()
    if not 0 < trained < num_params:
        raise damaged("it is split outside its parameters")
    halves = (reader.take(reader.varint()), slice(0, trained)), (reader.take_rest(), slice(trained, num_params))
    parts: list[tuple[slice, Part]] = []
    for part, where in halves:
        inner, size = PayloadReader(part), where.stop - where.start
        parts.append((where, _decode_whole(inner, _read_head(inner, size), size)))
    return Delta(num_params, tuple(parts))


def _checked_delta(delta: Vector) -> Vector:
    if not isinstance(delta, np.ndarray) or delta.dtype != np.float32 or delta.ndim != 1:
        found = f"{delta.dtype} of shape {delta.shape}" if isinstance(delta, np.ndarray) else type(delta).__name__
        raise CodecError(f"a delta is a float32 array of one dimension, this is {found}", "use as_vector()")
    if delta.size > MAX_PARAMS:
        raise CodecError(f"the delta has {delta.size} elements, at most {MAX_PARAMS} are allowed")
    return np.ascontiguousarray(delta)


def _head(layout: int, num_params: int) -> bytes:
    return bytes([FORMAT_VERSION << 4 | layout]) + varint(num_params)


def _read_head(reader: PayloadReader, num_params: int) -> int:
    first = reader.take(1)[0]
    if first >> 4 != FORMAT_VERSION:
        raise CodecError(
            f"the payload has format version {first >> 4}, this program reads {FORMAT_VERSION}",
            "run the same release on both sides",
        )
    declared = reader.varint()
    if declared != num_params or declared > MAX_PARAMS:
        raise CodecError(
            f"the payload holds {declared} parameters, the model has {num_params}",
            "sender and receiver must work on the same task bundle",
        )
    return first & 0x0F


def _encode_whole(delta: Vector, profile: Profile, seed: int = 0) -> bytes:
    layout, parts = _laid_out(delta, profile, seed)
    return b"".join([_head(layout, delta.size), *parts])


def _laid_out(delta: Vector, profile: Profile, seed: int) -> tuple[int, Parts]:
    peak = peak_of(delta)
    if profile.method == "float32":
        return (FLOAT32, floats.write_float32(delta)) if delta.view(np.uint32).any() else (ZEROS, [])
    if peak > MAX_STEP:
        raise CodecError(
            f"an element of the delta is {peak:.3g} in magnitude, lossy profiles end at {MAX_STEP:.3g}",
            "training has diverged: lower the learning rate or clip the gradient; nothing is sent",
        )
    if peak < NEGLIGIBLE_PEAK:
        return ZEROS, []
    if profile.method == "float16":
        return FLOAT16, floats.write_float16(delta, peak)
    if profile.method == "dead_zone":
        return _smallest_of_symbols(dead_zone(delta, peak, profile.error_target, profile.max_bits or math.inf))
    if profile.method == "stochastic":
        return _smallest_of_symbols(stochastic(delta, peak, profile.error_target, seed))
    return _smallest_of_uniform(*uniform(delta, peak, profile.max_level))


def _size(parts: Parts) -> int:
    return sum(map(len, parts))


def _smallest_of_uniform(step: float, levels: NDArray[np.int8]) -> tuple[int, Parts]:
    """As bytes or by one of the symbol layouts; a long vector is judged by its sample."""
    if levels.size > _SAMPLED_ABOVE:
        sample = np.concatenate([levels[piece] for piece in _sample(levels.size)])
        layout, _ = _smallest_of_uniform(step, sample)
        if layout == INT8:
            return INT8, floats.write_int8(step, levels)
        return _smallest_of_symbols(sparse_levels(step, levels))
    layout, parts = _smallest_of_symbols(sparse_levels(step, levels))
    whole = floats.write_int8(step, levels)
    return (layout, parts) if _size(parts) < _size(whole) * _WORTH_LISTING else (INT8, whole)


def _smallest_of_symbols(quantised: Quantised) -> tuple[int, Parts]:
    writers = {SPARSE: symbols.write_sparse}
    share = quantised.positions.size / max(quantised.num_params, 1)
    if share <= _LISTED_SHARE:
        writers[RICE] = symbols.write_rice
    if share > _DENSE_SHARE:
        writers[TRITS] = symbols.write_trits
        if symbols.suits_nibbles(quantised):
            writers[NIBBLES] = symbols.write_nibbles
    if quantised.num_params > _SAMPLED_ABOVE:
        sample = _sampled(quantised)
        best = min(writers, key=lambda layout: _size(writers[layout](sample)))
        return best, writers[best](quantised)
    candidates = ((layout, write(quantised)) for layout, write in writers.items())
    return min(candidates, key=lambda candidate: _size(candidate[1]))


def _sample(num_params: int) -> list[slice]:
    """Evenly spaced pieces of a vector, 2^18 elements in all."""
    starts = np.linspace(0, num_params - _PIECE, _PIECES).astype(int)
    return [slice(start, start + _PIECE) for start in starts.tolist()]


def _sampled(quantised: Quantised) -> Quantised:
    """The pieces of a quantised vector, one after the other."""
    positions: list[NDArray[np.int32]] = []
    levels: list[NDArray[np.int32]] = []
    for number, piece in enumerate(_sample(quantised.num_params)):
        first, last = np.searchsorted(quantised.positions, np.array([piece.start, piece.stop], np.int32))
        positions.append(quantised.positions[first:last] + np.int32(number * _PIECE - piece.start))
        levels.append(quantised.levels[first:last].astype(np.int32))
    return quantised._replace(
        num_params=_PIECES * _PIECE, positions=np.concatenate(positions), levels=np.concatenate(levels)
    )


def _decode_whole(reader: PayloadReader, layout: int, num_params: int) -> Part:
    if layout not in _READERS:
        raise damaged(f"it has the unknown layout {layout}")
    part = _READERS[layout](reader, num_params)
    reader.end()
    return part
