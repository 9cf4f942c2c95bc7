from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fieldfold.codec import PROFILES, ErrorFeedback, decode, encode
from fieldfold.codec.quantise import peak_of
from fieldfold.codec.stochastic import stochastic
from fieldfold.errors import CodecError
from fieldfold.params import Vector, as_vector

SIZE = 300
SEEDS = 400
TARGET = PROFILES["unbiased"].error_target

rng = np.random.default_rng(3)
DELTAS = {
    "heavy tails": as_vector(rng.standard_t(3, SIZE) * 1e-3),
    "gaussian": as_vector(rng.normal(size=SIZE)),
    "sparse": as_vector(rng.normal(size=SIZE) * (rng.random(SIZE) < 0.05)),
    "one outlier": as_vector(np.concatenate([rng.normal(size=SIZE - 1), [-1e4]])),
    "equal": np.full(SIZE, 0.25, np.float32),
    "tiny": as_vector(rng.laplace(size=SIZE) * 1e-18),
    "two elements": as_vector([1.0, -0.2]),
}


@cache
def received(name: str) -> NDArray[np.float64]:
    """(seeds, n): what arrives of a delta."""
    delta = DELTAS[name]
    drawn = [decode(encode(delta, "unbiased", seed=seed), delta.size) for seed in range(SEEDS)]
    return np.stack(drawn).astype(np.float64)


@pytest.mark.parametrize("name", DELTAS)
def test_what_arrives_is_on_average_what_was_sent(name: str) -> None:
    """Each element's mean over the seeds lies within what its draws allow (Bernstein); together they lie as wide."""
    delta = DELTAS[name]
    step = stochastic(delta, peak_of(delta), TARGET, 0).step
    exact = delta.astype(np.float64)
    share = np.modf(np.abs(exact) / step)[0]
    variance = share * (1 - share) / SEEDS
    missed = np.abs(received(name).mean(axis=0) - exact)
    assert (missed <= step * (5 * np.sqrt(variance) + 8 / SEEDS * (share > 0)) + np.abs(exact) * 1e-6).all()
    drawn = variance * SEEDS**2 > 5
    if drawn.any():
        spread = np.square(missed[drawn] / step).mean() / variance[drawn].mean()
        assert spread == pytest.approx(1, abs=6 * np.sqrt(2 / drawn.sum()))


@pytest.mark.parametrize("name", DELTAS)
def test_the_error_is_on_average_its_target_or_less(name: str) -> None:
    delta = DELTAS[name].astype(np.float64)
    errors = np.square(received(name) - delta).sum(axis=1) / np.square(delta).sum()
    assert errors.mean() <= TARGET + 4 * errors.std() / np.sqrt(SEEDS)


def test_in_a_long_vector_a_single_draw_has_the_error_of_its_target() -> None:
    delta = as_vector(np.random.default_rng(4).standard_t(4, 200_000) * 1e-3)
    missed = delta - decode(encode(delta, "unbiased", seed=5), delta.size)
    assert np.square(missed).sum() / np.square(delta).sum() == pytest.approx(TARGET, rel=0.02)


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(0, 2**64),
)
def test_no_element_moves_by_a_step_nor_changes_its_sign_and_zeros_stay(delta: Vector, seed: int) -> None:
    decoded = decode(encode(delta, "unbiased", seed=seed), delta.size)
    peak = peak_of(delta)
    step = stochastic(delta, peak, TARGET, 0).step if peak >= 2.0**-76 else 2.0**-76
    assert (np.abs(decoded - delta) <= step * (1 + 1e-6)).all()
    assert (decoded * np.sign(delta) >= 0).all()
    assert not decoded[delta == 0].any()


def test_every_element_has_a_draw_of_its_own() -> None:
    """Also beyond the block that is worked on at a time."""
    size = 200_000
    levels = decode(encode(np.full(size, 0.25, np.float32), "unbiased", seed=1), size)
    draws = (levels - levels.mean()) / levels.std()
    for distance in (1, 2, 1 << 15, 1 << 16, 1 << 17):
        assert abs(float((draws[distance:] * draws[:-distance]).mean())) < 0.02


def test_equal_seeds_give_equal_bytes_and_others_give_others() -> None:
    delta = DELTAS["gaussian"]
    assert len({encode(delta, "unbiased", seed=seed) for seed in [*range(20), *range(20)]}) == 20


def test_without_a_seed_every_update_has_its_own() -> None:
    assert len({encode(DELTAS["gaussian"], "balanced") for _ in range(20)}) == 20


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(CodecError, match="the seed is -1"):
        encode(as_vector([1.0]), "unbiased", seed=-1)


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if not profile.is_unbiased])
def test_no_other_profile_draws_anything(name: str) -> None:
    assert encode(DELTAS["gaussian"], name, seed=3) == encode(DELTAS["gaussian"], name)


def test_it_leaves_no_residual_and_what_another_profile_left_still_goes_out() -> None:
    delta = DELTAS["gaussian"]
    left = ErrorFeedback.start(SIZE).encode(delta, "compensated").feedback
    assert left.residual.any()
    arrived = np.zeros(SIZE)
    for seed in range(SEEDS):
        _, decoded, after, *_ = left.encode(delta, "unbiased", seed=seed)
        assert not after.residual.any()
        arrived += decoded
    wanted = delta.astype(np.float64) + left.residual
    missed = arrived / SEEDS - wanted
    assert np.square(missed).sum() / np.square(wanted).sum() < 1.3 * TARGET / SEEDS


@pytest.mark.parametrize("name", ["unbiased", "balanced", "frugal"])
def test_one_that_was_never_folded_goes_back_without_its_noise(name: str) -> None:
    """As often as it comes back: drawn from what was drawn before, noise would grow twentyfold each time."""
    feedback = ErrorFeedback.start(SIZE)
    for seed in range(8):
        encoded = feedback.encode(DELTAS["gaussian"] if not seed else np.zeros(SIZE, np.float32), name, seed=seed)
        feedback = encoded.feedback.restore(encoded.carried)
    assert (feedback.residual == DELTAS["gaussian"]).all()
