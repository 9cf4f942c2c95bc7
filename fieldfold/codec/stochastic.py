"""float32 vectors to integer levels at random, so that what arrives is on average what was sent.

A magnitude is rounded up with the probability of its distance from the level below (QSGD: Alistarh et al., 2017).
The draw is the encoder's own affair: levels stand for their multiples of the step, with no offset, and a decoder
needs neither seed nor random numbers. A dither that the decoder draws too and takes off again needs a fifth fewer
bits where a delta is dense, but a quarter more or twice as many where it is heavy-tailed or sparse: here zeros stay
zeros.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from fieldfold.codec.quantise import BLOCK, MAX_STEP, Quantised, bisect, magnitude_histogram
from fieldfold.params import Vector

_OCTAVES = 40  # an element that small is rounded up so seldom that a billion of them do not matter to the error
_SMALLEST_STEP_OF_PEAK = 2.0**-22
_FEWEST_LEVELS = 16
_LARGEST_LEVEL = 64
"""So many are not zero on average, or all down to a 64th of the largest: a delta of few parameters, or with one that
outweighs the others, is not left to chance to save a few bytes."""
_FINER_BITS = 8
_FINER = 1 << _FINER_BITS
_LOW_BYTE = 0 if sys.byteorder == "little" else 3
_DRAW_BITS = 53


def stochastic(delta: Vector, peak: float, error_target: float, seed: int) -> Quantised:
    """Quantises `delta` (n,) with the largest step whose expected `||d - d'||^2` is `error_target * ||d||^2`.

    The step is smaller where fewer than 16 levels would be other than 0.

    Args:
        delta: what to send.
        peak: its largest magnitude, above 0.
        error_target: in expectation; a single draw lies around it.
        seed: from 0. Equal seeds give equal levels; each update needs one of its own.
    """
    step = np.float32(_chosen_step(delta, peak, error_target))
    finer = np.float32(_FINER / step)
    bits = np.random.SFC64(seed)  # a bit generator: numpy promises that these stay the same
    positions: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    levels: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    for start in range(0, delta.size, BLOCK):
        block = delta[start : start + BLOCK]
        scaled: Vector = np.abs(block)
        scaled *= finer
        magnitudes = scaled.astype(np.int32)
        # A byte decides, but for one in 256, where what is below the 256ths has a draw of its own.
        sums = magnitudes + bits.random_raw(-(-block.size // 8)).view(np.uint8)[: block.size]
        edge = np.flatnonzero(sums.view(np.uint8)[_LOW_BYTE::4] == _FINER - 1)
        draws = (bits.random_raw(edge.size) >> np.uint64(64 - _DRAW_BITS)) * 2.0**-_DRAW_BITS
        sums[edge] += draws < scaled[edge] - magnitudes[edge]
        found = np.flatnonzero(sums >= _FINER)
        rounded = sums[found] >> _FINER_BITS
        positions.append((found + start).astype(np.int32))
        levels.append(np.where(block[found] < 0, -rounded, rounded))
    return Quantised(delta.size, float(step), (0, 0, 0), np.concatenate(positions), np.concatenate(levels))


def _chosen_step(delta: Vector, peak: float, error_target: float) -> float:
    magnitudes, counts = magnitude_histogram(delta, peak, _OCTAVES)
    energy = float(counts @ magnitudes**2)

    fewest = min(_FEWEST_LEVELS, float(counts.sum()))

    def holds(step: float) -> bool:
        scaled = magnitudes / step
        rest = np.modf(scaled)[0]
        if step > peak / _LARGEST_LEVEL and counts @ np.minimum(scaled, 1) < fewest:
            return False
        return float(counts @ (rest * (1 - rest))) * step * step <= error_target * energy

    # A step beyond the peak has the error step * sum |x| - ||x||^2, and ||x||^2 is at most peak * sum |x|.
    return bisect(peak * _SMALLEST_STEP_OF_PEAK, min((1 + error_target) * peak, MAX_STEP), holds)[0]
