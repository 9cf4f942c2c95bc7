"""float32 vectors to integer levels: one global step, a dead zone around zero.

A level `m` (an integer) with sign `s` stands for `s * (|m| + c) * step`, where the reconstruction offset `c`
is one of three: for |m| = 1, for |m| = 2, for all above. They move each level to the mean of what was rounded
to it, which matters because deltas are heavy-tailed: most of what falls into a bin lies at its lower end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import CodecError
from fieldfold.params import Vector

MAX_LEVEL = 1 << 24
"""Levels up to here are exact in float32."""

MIN_STEP = 2.0**-100
MAX_STEP = 2.0**100
"""Between these no product with a level or offset overflows or becomes subnormal, whatever the machine
does with subnormals, so that the decoded bits are equal everywhere."""

NEGLIGIBLE_PEAK = 2.0**-76
"""A delta without a larger element is encoded as zeros by the lossy profiles."""

OFFSET_SCALE = 128

ROUNDING = 0.3
"""|x|/step + ROUNDING is floored: a dead zone of +-0.7 steps, what an entropy-coded quantiser wants at low
rates (Sullivan, Efficient scalar quantization of exponential and Laplacian random variables, 1996)."""

_DEAD_ZONE = 1 - ROUNDING
_ROUNDOFF = 2.0**-20  # well above float32's, so that what the search let through is found
BLOCK = 1 << 16  # elements; its intermediates stay in a core's own cache
_EXACT_BELOW = 2048
_NO_POSITIONS = np.empty(0, np.int32)
_MANTISSA_BITS = 23
_HISTOGRAM_SHIFT = 14  # 9 bits of mantissa remain: bins 0.2 % wide
_OCTAVES = 20  # below the peak; what lies lower holds no energy
_SEARCH_STEPS = 18  # the step is exact to 1e-4
_SMALLEST_STEP_OF_PEAK = 2.0**-22
_MANY_LEVELS = 1 << 16


class Quantised(NamedTuple):
    """The non-zero levels of a quantised vector.

    Attributes:
        num_params: length of the vector, n.
        step: distance between levels, a float32 value from MIN_STEP to MAX_STEP.
        offsets: reconstruction offsets of |level| 1, 2 and above, each -127 to 127, in 1/128 steps.
        positions: (k,) int32, ascending, 0 to n - 1.
        levels: (k,) int8 or int32, not 0, magnitudes up to MAX_LEVEL.
    """

    num_params: int
    step: float
    offsets: tuple[int, int, int]
    positions: NDArray[np.int32]
    levels: NDArray[np.int8] | NDArray[np.int32]


def peak_of(delta: Vector) -> float:
    """Largest magnitude in `delta` (n,); 0 when it is empty.

    Raises:
        CodecError: when an element is NaN or infinite.
    """
    peak = 0.0
    for start in range(0, delta.size, BLOCK):
        block = delta[start : start + BLOCK]
        # Both propagate NaN, and np.maximum keeps it where Python's max() would lose it.
        peak = float(np.maximum(peak, np.maximum(block.max(), -block.min())))
    if not math.isfinite(peak):
        bad = int(np.flatnonzero(~np.isfinite(delta))[0])
        raise CodecError(
            f"the delta is {delta[bad]} at parameter {bad}",
            "training has diverged: lower the learning rate or clip the gradient; nothing is sent",
        )
    return peak


def uniform(delta: Vector, peak: float, max_level: int) -> tuple[float, NDArray[np.int8]]:
    """Rounds `delta` (n,) to the nearest of `2 * max_level + 1` levels; returns the step and (n,) int8."""
    step = float(np.float32(peak / max_level))
    inverse = np.float32(1 / step)
    levels = np.empty(delta.size, np.int8)
    for start in range(0, delta.size, BLOCK):
        stop = start + BLOCK
        rounded = np.rint(delta[start:stop] * inverse)
        np.clip(rounded, -max_level, max_level, out=rounded)
        levels[start:stop] = rounded
    return step, levels


def sparse_levels(step: float, levels: NDArray[np.int8]) -> Quantised:
    """The same quantised vector with its non-zero levels listed; the offsets are zero."""
    found = [
        (np.flatnonzero(levels[start : start + BLOCK] != 0) + start).astype(np.int32)
        for start in range(0, levels.size, BLOCK)
    ]
    positions = np.concatenate([_NO_POSITIONS, *found])
    return Quantised(levels.size, step, (0, 0, 0), positions, levels[positions])


def dead_zone(delta: Vector, peak: float, error_target: float, max_bits: float = math.inf) -> Quantised:
    """Quantises `delta` (n,) with the largest step that keeps `||d - d'||^2 <= error_target * ||d||^2`.

    Where the levels would then have an order-0 entropy above `max_bits` a parameter, with the smallest step that
    keeps it there. Above 2,048 elements the step comes from a histogram and the error may exceed the target by a
    percent.
    """
    step = np.float32(_chosen_step(delta, peak, error_target, max_bits))
    threshold = step * np.float32(_DEAD_ZONE * (1 - _ROUNDOFF))
    positions, levels = [_NO_POSITIONS], [_NO_POSITIONS]
    sums, counts = np.zeros(3), np.zeros(3)
    for start in range(0, delta.size, BLOCK):
        block = delta[start : start + BLOCK]
        above = np.flatnonzero(np.abs(block) >= threshold)
        values = block[above]
        scaled: Vector = np.divide(np.abs(values), step, dtype=np.float32)
        magnitudes = np.clip(scaled + np.float32(ROUNDING), 1, MAX_LEVEL).astype(np.int32)
        classes = np.minimum(magnitudes, 3) - 1
        sums += np.bincount(classes, weights=scaled - magnitudes, minlength=3)
        counts += np.bincount(classes, minlength=3)
        positions.append((above + start).astype(np.int32))
        levels.append(np.where(values < 0, -magnitudes, magnitudes))
    offsets = np.clip(np.rint(sums / np.maximum(counts, 1) * OFFSET_SCALE), -127, 127).astype(int)
    first, second, third = offsets.tolist()
    found = np.concatenate(positions)
    positions.clear()
    return Quantised(delta.size, float(step), (first, second, third), found, np.concatenate(levels))


def magnitude_histogram(
    delta: Vector, peak: float, octaves: int = _OCTAVES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Magnitudes that occur, down to so many octaves below the peak, and how often: (b,), (b,).

    Exact when short, else by bins 0.2 % wide.

    Every element counts: a subsample misses the few that hold most of a heavy-tailed delta's energy.
    """
    if delta.size <= _EXACT_BELOW:
        magnitudes = np.abs(delta[delta != 0]).astype(np.float64)
        return magnitudes, np.ones_like(magnitudes)
    # The bits of positive floats are ordered as the floats are, and evenly spaced in each octave.
    bits = delta.view(np.uint32)
    span = octaves << _MANTISSA_BITS
    num_bins = (span >> _HISTOGRAM_SHIFT) + 1
    lowest = np.float32(peak).view(np.uint32) - np.uint32(span)
    counts = np.zeros(num_bins, np.int64)
    for start in range(0, bits.size, BLOCK):
        above = np.maximum(bits[start : start + BLOCK] & np.uint32(0x7FFFFFFF), lowest) - lowest
        bins = (above >> np.uint32(_HISTOGRAM_SHIFT)).astype(np.intp)
        counts += np.bincount(bins, minlength=num_bins)
    counts[0] = 0
    occupied = np.flatnonzero(counts)
    # Lower edges: a step for which a bin leaves the dead zone then frees everything that is in the bin.
    edges = ((occupied << _HISTOGRAM_SHIFT) + int(lowest)).astype(np.uint32).view(np.float32)
    return edges.astype(np.float64), counts[occupied].astype(np.float64)


def _squared_error(magnitudes: NDArray[np.float64], counts: NDArray[np.float64], step: float) -> float:
    """Squared error in units of step^2 after quantising with `step` and its best offsets."""
    scaled = magnitudes / step
    levels = np.floor(scaled + ROUNDING)
    rest = scaled - levels
    weighted = counts * rest
    classes = np.minimum(levels, 3).astype(np.intp)
    sums = np.bincount(classes, weights=weighted, minlength=4)[1:]
    members = np.bincount(classes, weights=counts, minlength=4)[1:]
    gained = float((sums**2 / np.maximum(members, 1)).sum())
    return float(weighted @ rest) - gained


def _entropy_bits(
    magnitudes: NDArray[np.float64], counts: NDArray[np.float64], step: float, num_params: int
) -> float:
    """Order-0 entropy of all levels together after quantising with `step`."""
    levels = np.minimum(np.floor(magnitudes / step + ROUNDING), MAX_LEVEL).astype(np.intp)
    if levels.size and levels.max() > _MANY_LEVELS:
        return math.inf
    occurring = np.bincount(levels, weights=counts)
    nonzero = float(occurring[1:].sum())
    occurring[:1] = num_params - nonzero
    shares = occurring[occurring > 0] / num_params
    return nonzero - num_params * float(shares @ np.log2(shares))  # a sign for each that is not zero


def bisect(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Where between two steps `holds` changes, in the logarithm; it is taken to differ at the two ends."""
    for _ in range(_SEARCH_STEPS):
        step = math.sqrt(low * high)
        low, high = (step, high) if holds(step) else (low, step)
    return low, high


def _chosen_step(delta: Vector, peak: float, error_target: float, max_bits: float) -> float:
    """The largest step that meets the target, or a larger one where that costs too much."""
    magnitudes, counts = magnitude_histogram(delta, peak)
    energy = float(counts @ magnitudes**2)
    most = min(peak / _DEAD_ZONE, MAX_STEP)
    step, _ = bisect(
        peak * _SMALLEST_STEP_OF_PEAK,
        most,
        lambda step: _squared_error(magnitudes, counts, step) * step * step <= error_target * energy,
    )

    def too_large(step: float) -> bool:
        return _entropy_bits(magnitudes, counts, step, delta.size) > max_bits * delta.size

    if max_bits < math.inf and too_large(step):
        _, step = bisect(step, most, too_large)
    return step
