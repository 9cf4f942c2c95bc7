"""A decoded payload without its zeros is the vector, and adding it gives the bits that adding the vector gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfold.codec import PROFILES, add_all, decode, decode_delta, encode
from fieldfold.params import Vector, norm

SIZES = st.integers(1, 3000)


def delta(seed: int, size: int, share: float) -> Vector:
    """Heavy-tailed, with a share of it zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, size) * (rng.random(size) < share)
    return values.astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldfold.codec.delta._BLOCK", 700)


@given(
    seed=st.integers(0, 2**32),
    size=SIZES,
    share=st.sampled_from((0.0, 0.01, 0.3, 1.0)),
    profiles=st.lists(st.sampled_from(sorted(PROFILES)), max_size=4),
)
def test_adding_them_gives_the_same_bits_as_adding_the_vectors(
    seed: int, size: int, share: float, profiles: list[str]
) -> None:
    total = delta(seed + 1, size, 0.5) + np.float32(0)
    expected = total.copy()
    terms = []
    for place, profile in enumerate(profiles):
        payload = encode(delta(seed + place, size, share), profile, seed=seed)
        factor = np.float32(0.3 + place)
        expected += factor * decode(payload, size)
        terms.append((factor, decode_delta(payload, size)))
    add_all(total, terms)
    assert total.tobytes() == expected.tobytes()


@given(seed=st.integers(0, 2**32), size=SIZES, trained=st.integers(0, 3000))
def test_the_same_with_buffers_behind_the_parameters(seed: int, size: int, trained: int) -> None:
    payload = encode(delta(seed, size, 0.5), num_trained=min(trained, size))
    found = decode_delta(payload, size)
    whole = decode(payload, size)
    assert found.dense().tobytes() == whole.tobytes()
    assert found.norm() == pytest.approx(norm(whole), rel=1e-6)
    total = np.zeros(size, np.float32)
    add_all(total, [(np.float32(1), found)])
    assert total.tobytes() == (np.zeros(size, np.float32) + whole).tobytes()


@pytest.mark.parametrize("profile", ["balanced", "frugal"])
def test_at_the_default_profile_it_takes_less_memory_than_the_vector(profile: str) -> None:
    payload = encode(delta(0, 100_000, 1.0), profile)
    assert decode_delta(payload, 100_000).size_bytes < 4 * 100_000 / 4


def test_nothing_is_nothing() -> None:
    found = decode_delta(encode(np.zeros(5, np.float32)), 5)
    assert (found.size_bytes, found.norm(), found.dense().tolist()) == (0, 0.0, [0.0] * 5)
