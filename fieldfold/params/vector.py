"""What can be said of a flat parameter vector without knowing its layout."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float32]
"""A contiguous, one-dimensional float32 array."""


def as_vector(values: ArrayLike) -> Vector:
    """A contiguous one-dimensional float32 array with the elements of `values` in C order."""
    return np.ascontiguousarray(values, np.float32).reshape(-1)


def to_bytes(vector: Vector) -> bytes:
    """The elements as little-endian float32."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def view_bytes(vector: Vector) -> memoryview:
    """The same without a copy, where the machine is little-endian; for a vector that nobody changes meanwhile."""
    return np.ascontiguousarray(vector, "<f4").data.cast("B")


def from_bytes(data: bytes | memoryview) -> Vector:
    """The vector that `to_bytes` was given, as a new array.

    Raises:
        ValueError: when the length is not a multiple of four.
    """
    return np.frombuffer(data, "<f4").astype(np.float32)


def norm(vector: Vector) -> float:
    """Euclidean norm, summed in float64."""
    return float(np.sqrt(np.einsum("i,i->", vector, vector, dtype=np.float64)))


def is_finite(vector: Vector) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(vector).all())


def clip_norm(vector: Vector, limit: float) -> Vector:
    """`vector` itself when its norm is at most `limit`, else a copy scaled down to that norm."""
    length = norm(vector)
    return vector if length <= limit else vector * np.float32(limit / length)


def digest(vector: Vector) -> str:
    """SHA-256, in hex, of the elements as little-endian float32: equal digests mean equal bits."""
    return hashlib.sha256(np.ascontiguousarray(vector, "<f4").data).hexdigest()
