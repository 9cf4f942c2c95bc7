from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.codec import PROFILES, ErrorFeedback, Profile, decode
from fieldfold.errors import CodecError
from fieldfold.params import Vector, as_vector, digest, norm

SIZE = 3000


def deltas(count: int, seed: int = 0) -> list[Vector]:
    rng = np.random.default_rng(seed)
    return [as_vector(rng.standard_t(3, SIZE) * 1e-3) for _ in range(count)]


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if not profile.is_unbiased])
def test_what_arrived_and_what_is_left_add_up_to_what_was_trained(name: str) -> None:
    feedback = ErrorFeedback.start(SIZE)
    arrived = np.zeros(SIZE)
    for delta in deltas(20):
        payload, decoded, feedback, *_ = feedback.encode(delta, name)
        assert digest(decoded) == digest(decode(payload, SIZE))
        arrived += decoded
    trained = np.sum(deltas(20), axis=0, dtype=np.float64)
    assert np.abs(arrived + feedback.residual - trained).max() < 1e-7


def test_nothing_is_left_behind_by_the_lossless_profile() -> None:
    encoded = ErrorFeedback.start(SIZE).encode(deltas(1)[0], "lossless")
    assert not encoded.feedback.residual.any()


@pytest.mark.parametrize("target", [0.5, 0.85])
def test_the_residual_stays_within_what_theory_says(target: float) -> None:
    """With error target t the residual's norm never exceeds sqrt(t) / (1 - sqrt(t)) deltas."""
    profile = Profile("under test", "dead_zone", error_target=target)
    share = target**0.5 * 1.01
    feedback = ErrorFeedback.start(SIZE)
    longest = max(norm(delta) for delta in deltas(40))
    for delta in deltas(40):
        feedback = feedback.encode(delta, profile).feedback
        assert norm(feedback.residual) <= longest * share / (1 - share)


def test_the_residual_stays_bounded_where_the_bits_are_bounded_too() -> None:
    """About 1.5 deltas of independent noise."""
    feedback = ErrorFeedback.start(SIZE)
    longest = max(norm(delta) for delta in deltas(200))
    for delta in deltas(200):
        feedback = feedback.encode(delta, "compensated").feedback
        assert norm(feedback.residual) < 4 * longest


@pytest.mark.parametrize("name", ["compensated", "int4"])
@settings(deadline=None, max_examples=40)
@given(accepted=st.lists(st.booleans(), min_size=1, max_size=8), random=st.randoms(use_true_random=False))
def test_rejected_updates_go_back_in_any_order(name: str, accepted: list[bool], random: object) -> None:
    feedback = ErrorFeedback.start(SIZE)
    arrived = np.zeros(SIZE)
    rejected = []
    trained = deltas(len(accepted))
    for delta, is_accepted in zip(trained, accepted, strict=True):
        _, decoded, feedback, carried, *_ = feedback.encode(delta, name)
        if is_accepted:
            arrived += decoded
        else:
            rejected.append(carried)
    random.shuffle(rejected)  # type: ignore[attr-defined]
    for carried in rejected:
        feedback = feedback.restore(carried)
    total = np.sum(trained, axis=0, dtype=np.float64)
    assert np.abs(arrived + feedback.residual - total).max() < 1e-7


def test_a_newer_delta_that_contains_the_older_starts_from_the_feedback_of_before() -> None:
    first, more = deltas(2)
    before = ErrorFeedback(as_vector(deltas(3)[2]), SIZE)
    before.encode(first, "compensated")
    encoded = before.encode(first + more, "compensated")
    assert np.allclose(encoded.decoded + encoded.feedback.residual, before.residual + first + more, atol=1e-7)


def test_it_survives_storage_bit_for_bit() -> None:
    feedback = ErrorFeedback.start(SIZE, num_trained=2990).encode(deltas(1)[0], "compensated").feedback
    again = ErrorFeedback.from_bytes(feedback.to_bytes(), SIZE, num_trained=2990)
    assert digest(again.residual) == digest(feedback.residual)
    assert again.num_trained == 2990


def test_storage_of_another_model_is_refused() -> None:
    with pytest.raises(CodecError, match="parameters"):
        ErrorFeedback.from_bytes(ErrorFeedback.start(3).to_bytes(), 4)


def test_buffers_leave_no_residual_and_are_not_restored() -> None:
    start = ErrorFeedback.start(SIZE, num_trained=2900)
    _, decoded, feedback, carried, *_ = start.encode(deltas(1)[0], "compensated")
    assert np.allclose(decoded[2900:], deltas(1)[0][2900:], rtol=1e-3)
    assert not feedback.residual[2900:].any()
    assert feedback.residual[:2900].any()
    assert not feedback.restore(carried).residual[2900:].any()


def test_a_refused_delta_leaves_it_as_it_was() -> None:
    feedback = ErrorFeedback.start(SIZE).encode(deltas(1)[0], "compensated").feedback
    before = digest(feedback.residual)
    with pytest.raises(CodecError, match="nan"):
        feedback.encode(np.full(SIZE, np.nan, np.float32))
    with pytest.raises(CodecError, match="does not fit"):
        feedback.encode(as_vector([1.0]))
    assert digest(feedback.residual) == before


def test_the_residual_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ErrorFeedback.start(3).residual[0] = 1


def test_restoring_beyond_the_range_of_float32_is_refused() -> None:
    largest = as_vector([3e38])
    payload = ErrorFeedback.start(1).encode(largest, "lossless").payload
    with pytest.raises(CodecError, match="overflows"):
        ErrorFeedback(largest, 1).restore(payload)


def test_more_trained_parameters_than_parameters_are_refused() -> None:
    with pytest.raises(CodecError, match="num_trained"):
        ErrorFeedback.start(3, num_trained=4)
