"""A decoded payload as it was sent: most layouts list what is not zero, and whoever only adds needs no more."""

from __future__ import annotations

import math
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

    def add_to(self, total: Vector, factor: np.float32) -> None:
        """Total <- total + factor x delta, in place: the very bits that adding the dense vector gives."""
        for where, part in self.parts:
            if isinstance(part, Listed):
                # Positions are distinct, so each sum is rounded once, as in a dense addition; x + 0 is x.
                np.add.at(total[where], part.positions.astype(np.intp), factor * part.values)
            else:
                total[where] += factor * part

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
