"""The layouts that hold every element at a fixed width: float32, scaled float16, 8-bit levels.

The bytes of wider elements lie in planes, all lowest bytes first, all highest (sign and exponent) last:
neighbours then resemble one another and zstd finds what there is to find.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from fieldfold.codec.quantise import MAX_STEP, MIN_STEP
from fieldfold.codec.streams import Parts, PayloadReader, damaged, stream
from fieldfold.params import Vector

_STEP = struct.Struct("<f")
_HALF_EXPONENT = 15  # the largest element becomes 2^14 to 2^15, well inside float16's 65504


def checked_step(step: float) -> np.float32:
    """`step` itself.

    Raises:
        CodecError: when it is NaN or outside MIN_STEP to MAX_STEP.
    """
    if not MIN_STEP <= step <= MAX_STEP:
        raise damaged("its step is out of bounds")
    return np.float32(step)


def _planes(elements: NDArray[np.generic]) -> bytes:
    width = elements.dtype.itemsize
    return elements.view(np.uint8).reshape(-1, width).T.tobytes()


def _from_planes(raw: bytes | memoryview, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(width, -1).T)


def write_float32(delta: Vector) -> Parts:
    """Layout 1: every bit of `delta` (n,)."""
    return stream(_planes(delta.astype("<f4", copy=False)))


def read_float32(reader: PayloadReader, num_params: int) -> Vector:
    """The vector (n,) that `write_float32` was given.

    Raises:
        CodecError: when the payload is damaged or an element is not finite.
    """
    values = _from_planes(reader.stream(4 * num_params, exact=True), 4).view("<f4").reshape(-1)
    if not np.isfinite(values).all():
        raise damaged("an element is not finite")
    return values.astype(np.float32, copy=False)


def write_float16(delta: Vector, peak: float) -> Parts:
    """Layout 2: `delta` (n,) over a power of two near `peak`, each element rounded to float16.

    The scale keeps small deltas out of float16's subnormals, where they would lose their precision.
    """
    step = 2.0 ** (math.frexp(peak)[1] - _HALF_EXPONENT)
    halves = (delta * np.float32(1 / step)).astype("<f2")
    return [_STEP.pack(step), *stream(_planes(halves))]


def read_float16(reader: PayloadReader, num_params: int) -> Vector:
    """The vector (n,) that was written, rounded.

    Raises:
        CodecError: when the payload is damaged or an element is not finite.
    """
    (step,) = reader.unpack(_STEP)
    scale = checked_step(step)
    halves = _from_planes(reader.stream(2 * num_params, exact=True), 2).view("<f2").reshape(-1)
    if not np.isfinite(halves).all():
        raise damaged("an element is not finite")
    values: Vector = halves.astype(np.float32)
    values *= scale
    return values


def write_int8(step: float, levels: NDArray[np.int8]) -> Parts:
    """Layout 3: one signed byte an element."""
    return [_STEP.pack(step), *stream(levels.tobytes())]


def read_int8(reader: PayloadReader, num_params: int) -> Vector:
    """Each level (n,) times the step.

    Raises:
        CodecError: when the payload is damaged.
    """
    (step,) = reader.unpack(_STEP)
    scale = checked_step(step)
    levels = np.frombuffer(reader.stream(num_params, exact=True), np.int8)
    return np.multiply(levels, scale, dtype=np.float32)
