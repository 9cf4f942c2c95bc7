from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fieldfold.params import Vector, as_vector, clip_norm, digest, from_bytes, is_finite, norm, to_bytes, view_bytes

VECTORS = arrays(np.float32, st.integers(0, 50), elements=st.floats(-1e6, 1e6, width=32))
ANY_VECTORS = arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32))


def test_anything_numeric_becomes_a_flat_float32_vector_in_c_order() -> None:
    vector = as_vector(np.array([[1, 2], [3, 4]], np.int64, order="F"))
    assert vector.dtype == np.float32
    assert vector.tolist() == [1, 2, 3, 4]
    assert vector.flags.c_contiguous


def test_the_bytes_are_little_endian_float32() -> None:
    assert to_bytes(as_vector([1.0, -2.5])) == struct.pack("<2f", 1.0, -2.5)
    assert digest(as_vector([1.0, -2.5])) == hashlib.sha256(struct.pack("<2f", 1.0, -2.5)).hexdigest()


@settings(deadline=None)
@given(ANY_VECTORS)
def test_bytes_there_and_back_keep_every_bit(vector: Vector) -> None:
    again = from_bytes(to_bytes(vector))
    assert again.tobytes() == vector.tobytes()
    assert digest(again) == digest(vector)
    assert again.flags.writeable
    assert view_bytes(vector) == to_bytes(vector)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_length_that_is_no_multiple_of_four_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        from_bytes(b"x" * size)


def test_equal_values_with_other_bits_have_another_digest() -> None:
    assert digest(as_vector([0.0])) != digest(as_vector([-0.0]))


def test_a_view_with_gaps_has_the_digest_of_its_elements() -> None:
    assert digest(np.arange(6, dtype=np.float32)[::2]) == digest(as_vector([0, 2, 4]))


def test_the_norm_is_summed_in_float64() -> None:
    assert norm(as_vector([3, 4])) == 5.0
    assert norm(as_vector([])) == 0.0
    assert norm(as_vector([3e38, 3e38])) == pytest.approx(3e38 * math.sqrt(2), rel=1e-6)
    assert norm(np.ones(1 << 20, np.float32) * np.float32(1e-3)) == pytest.approx(1.024, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_means_every_element(bad: float) -> None:
    assert is_finite(as_vector([1, 2]))
    assert not is_finite(as_vector([1, bad]))
    assert not math.isfinite(norm(as_vector([1, bad])))


@settings(deadline=None)
@given(VECTORS, st.floats(1e-3, 1e6))
def test_clipping_keeps_the_direction_and_bounds_the_norm(vector: Vector, limit: float) -> None:
    clipped = clip_norm(vector, limit)
    assert norm(clipped) <= limit * (1 + 1e-5)
    if norm(vector) <= limit:
        assert clipped is vector
    else:
        np.testing.assert_allclose(clipped, vector * (limit / norm(vector)), rtol=1e-5, atol=1e-30)
