"""A decoded payload as it was sent: most layouts list what is not zero, and whoever only adds needs no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fieldfold.params import Vector, norm


class Listed(NamedTuple):
    """The elements of a vector that are not zero: ascending positions (k,) and values (k,)."""

    positions: NDArray[np.int32]
    values: Vector


NOTHING = Listed(np.empty(0, np.int32), np.empty(0, np.float32))

Part: TypeAlias = Listed | Vector

_BLOCK = 1 << 18


class Delta(NamedTuple):
    """A vector (num_params,), all finite, in one or two parts that follow one another."""

    num_params: int
    parts: tuple[tuple[slice, Part], ...]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        arrays = (part if isinstance(part, Listed) else (part,) for _, part in self.parts)
        return sum(array.nbytes for part in arrays for array in part)

    def norm(self) -> float:
        """Euclidean norm, summed in float64."""
        norms = (norm(part.values if isinstance(part, Listed) else part) for _, part in self.parts)
        return math.hypot(*norms)

    def dot(self, vector: Vector) -> float:
        """Inner product with a vector (num_params,), summed in float64."""
        found = 0.0
        for where, part in self.parts:
            section = vector[where]
            ours, theirs = (part.values, section[part.positions]) if isinstance(part, Listed) else (part, section)
            found += float(np.einsum("i,i->", ours, theirs, dtype=np.float64))
        return found

    def dense(self) -> Vector:
        """The whole vector; not a copy where it lies there already."""
        if len(self.parts) == 1 and not isinstance(self.parts[0][1], Listed):
            return self.parts[0][1]
        vector = np.zeros(self.num_params, np.float32)
        for where, part in self.parts:
            section = vector[where]
            if isinstance(part, Listed):
                section[part.positions] = part.values
            else:
                section[:] = part
        return vector


def add_all(total: Vector, terms: Sequence[tuple[np.float32, Delta]]) -> None:
    """Total <- total + factor x delta for one term after the other, in place: the very bits of dense additions.

    Goes by blocks of the vector, so that each is fetched from memory once for all terms.
    """
    parts = [(factor, where.start, part) for factor, delta in terms for where, part in delta.parts]
    for start in range(0, total.size, _BLOCK):
        block = total[start : start + _BLOCK]
        for factor, offset, part in parts:
            _add_part(block, start - offset, factor, part)


def _add_part(block: Vector, start: int, factor: np.float32, part: Part) -> None:
    """Adds to a block of the vector what a part says of it; the block begins `start` elements behind the part."""
    stop = start + block.size
    if isinstance(part, Listed):
        first, last = np.searchsorted(part.positions, np.array([start, stop], np.int32))
        places = np.subtract(part.positions[first:last], start, dtype=np.intp)
        # Positions are distinct, so each sum is rounded once, as in a dense addition; x + 0 is x.
        np.add.at(block, places, factor * part.values[first:last])
    elif stop > 0 and start < part.size:
        section = part[max(start, 0) : stop]
        block[max(-start, 0) :][: section.size] += factor * section
