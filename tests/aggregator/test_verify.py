"""Every reason for which an update is refused, and that nothing else is."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.verify.update import Accepted, Expectation, Rejected, VerifyConfig, verify
from tests.aggregator.tiny import NUM_PARAMS, OTHER_RUN, RUN, lossless_payload, payload, update

EXPECTED = Expectation(run=bytes.fromhex(RUN), num_params=NUM_PARAMS, num_classes=2, version=7)
LIMITS = VerifyConfig(max_staleness=5, max_num_examples=1000, max_norm=10.0)


def refusal(**changes: Any) -> Rejected:
    fields: dict[str, Any] = {"base_version": 5, **changes}
    verdict = verify(update(**fields), "press-1", EXPECTED, LIMITS)
    assert isinstance(verdict, Rejected)
    return verdict


def test_a_sound_update_is_accepted_with_staleness_and_norm() -> None:
    verdict = verify(update(base_version=5, delta=(3, 0, 4)), "press-1", EXPECTED, LIMITS)
    assert verdict == Accepted(staleness=2, norm=5.0)


def test_the_smallest_and_the_largest_that_is_allowed() -> None:
    for changes in (
        {"num_examples": 1, "num_steps": 1, "base_version": 7},
        {"num_examples": 1000, "base_version": 2},
        {"delta": (6, 0, 8)},
        {"delta": (0, 0, 0)},
        {"class_scores": ()},
        {"class_scores": ((0.5, 0), (-1e300, 2**53 - 1))},
    ):
        fields: dict[str, Any] = {"base_version": 5, **changes}
        assert isinstance(verify(update(**fields), "press-1", EXPECTED, LIMITS), Accepted)


def test_another_node_s_name() -> None:
    verdict = refusal(node="press-2")
    assert "press-2" in verdict.reason
    assert "press-1" in verdict.reason
    assert verdict.code == "invalid"


def test_another_run() -> None:
    verdict = refusal(run=OTHER_RUN)
    assert verdict.code == "other_run"
    assert RUN in verdict.reason


@pytest.mark.parametrize("num_examples", [-1, 0, 1001, 2**63])
def test_an_absurd_number_of_examples(num_examples: int) -> None:
    verdict = refusal(num_examples=num_examples)
    assert str(num_examples) in verdict.reason
    assert "verify.max_num_examples" in verdict.hint


def test_nothing_trained() -> None:
    assert "num_steps" in refusal(num_steps=0).reason


@pytest.mark.parametrize("train_loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(train_loss: float) -> None:
    assert "train_loss" in refusal(train_loss=train_loss).reason


@pytest.mark.parametrize("base_loss", [math.nan, math.inf, -math.inf])
def test_a_loss_of_the_base_that_is_not_finite(base_loss: float) -> None:
    assert "base_loss" in refusal(base_loss=base_loss).reason


def test_scores_by_class_of_another_number_of_classes() -> None:
    assert "class_scores tells of 3 classes, 2" in refusal(class_scores=((0.5, 1),) * 3).reason
    assert "1 classes" in refusal(class_scores=((0.5, 1),)).reason


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_by_class_that_are_not_finite(score: float) -> None:
    assert "class_scores is not finite" in refusal(class_scores=((0.5, 1), (score, 0))).reason


def test_a_task_without_classes_takes_no_scores_by_class() -> None:
    expected = msgspec.structs.replace(EXPECTED, num_classes=0)
    verdict = verify(update(base_version=5, class_scores=((0.5, 1),)), "press-1", expected, LIMITS)
    assert isinstance(verdict, Rejected)


@pytest.mark.parametrize("trained_norm", [math.nan, math.inf, -1.0])
def test_a_norm_that_is_none(trained_norm: float) -> None:
    assert "trained_norm" in refusal(trained_norm=trained_norm).reason


@pytest.mark.parametrize("base_version", [8, 2**53 - 1])
def test_a_base_version_that_was_never_released(base_version: int) -> None:
    verdict = refusal(base_version=base_version)
    assert f"unknown base version {base_version}" in verdict.reason
    assert verdict.code == "ahead"


def test_a_base_version_too_long_ago() -> None:
    verdict = refusal(base_version=1)
    assert verdict.code == "stale"
    assert "6 versions ago, 5 are allowed" in verdict.reason


def test_the_method_s_own_limit_of_staleness() -> None:
    synchronous = msgspec.structs.replace(EXPECTED, max_staleness=0)
    verdict = verify(update(base_version=6), "press-1", synchronous, LIMITS)
    assert isinstance(verdict, Rejected)
    assert verdict.code == "stale"
    assert isinstance(verify(update(base_version=7), "press-1", synchronous, LIMITS), Accepted)


@pytest.mark.parametrize("delta", [(1.0,), (1.0,) * (NUM_PARAMS + 1)], ids=["too short", "too long"])
def test_another_number_of_parameters(delta: tuple[float, ...]) -> None:
    assert f"the model has {NUM_PARAMS}" in refusal(delta=delta).reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_not_finite(value: float) -> None:
    verdict = refusal(body=lossless_payload(0, value, 0))
    assert verdict.reason.startswith("the delta does not decode")
    assert "not finite" in verdict.reason


@pytest.mark.parametrize("body", [b"", b"\x00", payload(1, 2, 3)[:-1], payload(1, 2, 3) + b"\x00", b"\xff" * 100])
def test_a_payload_that_is_damaged(body: bytes) -> None:
    assert "the delta does not decode" in refusal(body=body).reason


def test_an_absurd_norm() -> None:
    verdict = refusal(delta=(0, 10.1, 0))
    assert "norm is 10.1, at most 10" in verdict.reason
    assert verdict.hint == "see verify.max_norm"


def test_the_norm_is_measured_by_the_recent_ones() -> None:
    used_to_large = msgspec.structs.replace(EXPECTED, typical_norm=20.0)
    far = update(base_version=7, delta=(0, 199, 0))
    assert isinstance(verify(far, "press-1", EXPECTED, LIMITS), Rejected)
    assert isinstance(verify(far, "press-1", used_to_large, LIMITS), Accepted)
    used_to_small = msgspec.structs.replace(EXPECTED, typical_norm=1e-6)
    assert isinstance(verify(update(base_version=7, delta=(0, 9, 0)), "press-1", used_to_small, LIMITS), Accepted)


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=200) | st.binary(max_size=40).map(lambda tail: payload(1, 2, 3)[:6] + tail),
    num_examples=st.integers(-(2**63), 2**64 - 1),
    base_version=st.integers(0, 2**53 - 1),
    train_loss=st.floats(),
)
def test_whatever_a_node_sends_is_accepted_or_refused(
    body: bytes, num_examples: int, base_version: int, train_loss: float
) -> None:
    sent = update(body=body, num_examples=num_examples, base_version=base_version, train_loss=train_loss)
    verdict = verify(sent, "press-1", EXPECTED, LIMITS)
    if isinstance(verdict, Accepted):
        assert 0 <= verdict.staleness <= LIMITS.max_staleness
        assert 0 <= verdict.norm <= LIMITS.max_norm
    else:
        assert verdict.reason
