from __future__ import annotations

import numpy as np
import pytest

from fieldfold.codec import Profile, decode, encode
from fieldfold.codec.payload import NIBBLES, RICE, SPARSE, TRITS
from fieldfold.codec.quantise import dead_zone, peak_of
from fieldfold.params import Vector, as_vector


def heavy_tailed(size: int, seed: int = 0) -> Vector:
    """Layers of unlike scales, heavy tails in each, as real deltas have (kurtosis 28 to 733)."""
    rng = np.random.default_rng(seed)
    scales = np.repeat(np.exp(rng.normal(0, 0.7, -(-size // 100))), 100)[:size]
    return as_vector(rng.standard_t(4, size) * scales * 1e-3)


def bits_a_parameter(delta: Vector, profile: str | Profile) -> float:
    return 8 * len(encode(delta, profile)) / delta.size


@pytest.mark.parametrize(
    ("profile", "at_most"),
    [
        ("lossless", 29),
        ("float16", 16),
        ("int8", 5),
        ("int4", 1.2),
        ("compensated", 0.35),
        ("balanced", 0.33),
        ("frugal", 0.17),
    ],
)
def test_what_each_profile_costs(profile: str, at_most: float) -> None:
    assert bits_a_parameter(heavy_tailed(100_000), profile) < at_most


@pytest.mark.parametrize(("profile", "at_most_bytes"), [("compensated", 50), ("balanced", 50), ("frugal", 32)])
def test_a_model_of_500_parameters_pays_no_tens_of_bytes_for_headers(profile: str, at_most_bytes: int) -> None:
    sizes = [len(encode(heavy_tailed(500), profile, seed=seed)) for seed in range(50)]
    assert np.mean(sizes) <= at_most_bytes


@pytest.mark.parametrize("profile", ["compensated", "balanced", "frugal", "unbiased", "int8", "int4"])
def test_a_single_outlier_costs_a_few_bytes(profile: str) -> None:
    delta = np.full(100_000, 1e-9, np.float32)
    delta[70_000] = -3.0
    payload = encode(delta, profile, seed=2)
    assert len(payload) < 60
    assert decode(payload, delta.size)[70_000] == pytest.approx(-3.0, rel=0.01)


def order_zero_entropy_bits(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum())


@pytest.mark.parametrize("target", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("gaussian", [False, True])
def test_payloads_are_near_the_entropy_of_their_levels(target: float, gaussian: bool) -> None:  # noqa: FBT001
    size = 200_000
    delta = as_vector(np.random.default_rng(1).normal(size=size)) if gaussian else heavy_tailed(size)
    quantised = dead_zone(delta, peak_of(delta), target)
    levels = np.zeros(size, np.int32)
    levels[quantised.positions] = quantised.levels
    payload = encode(delta, Profile("under test", "dead_zone", error_target=target))
    assert 8 * len(payload) < 1.04 * order_zero_entropy_bits(levels)


LAYOUTS = {
    "rice": (0.85, 0, RICE),
    "trits": (0.25, 0, TRITS),
    "nibbles": (0.01, 0, NIBBLES),
    "sparse": (0.3, 50, SPARSE),
}


def gaussian(size: int, run: int) -> Vector:
    """Noise, everywhere or in runs that are a twentieth of it."""
    rng = np.random.default_rng(2)
    where = np.repeat(rng.random(size // run + 1) < 0.05, run)[:size] if run else 1
    return as_vector(rng.normal(size=size) * where)


@pytest.mark.parametrize("size", [100_000, (1 << 20) + 77], ids=["short", "long"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_the_smallest_and_a_long_delta_is_judged_by_a_part(name: str, size: int) -> None:
    target, run, layout = LAYOUTS[name]
    delta = gaussian(size, run)
    payload = encode(delta, Profile("t", "dead_zone", error_target=target))
    assert payload[0] & 15 == layout
    assert np.square(delta - decode(payload, size)).sum() < 1.01 * target * np.square(delta).sum()


@pytest.mark.parametrize("max_bits", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("gaussian", [False, True])
def test_a_bound_on_the_bits_holds_whatever_the_delta_is_like(max_bits: float, gaussian: bool) -> None:  # noqa: FBT001
    size = 200_000
    delta = as_vector(np.random.default_rng(4).normal(size=size)) if gaussian else heavy_tailed(size)
    bounded = Profile("under test", "dead_zone", error_target=0.001, max_bits=max_bits)
    bits = bits_a_parameter(delta, bounded)
    assert 0.9 * max_bits < bits < 1.07 * max_bits


def test_a_bound_that_is_not_reached_changes_nothing() -> None:
    delta = heavy_tailed(100_000)
    bounded = Profile("under test", "dead_zone", error_target=0.5, max_bits=2.0)
    assert encode(delta, bounded) == encode(delta, Profile("under test", "dead_zone", error_target=0.5))
