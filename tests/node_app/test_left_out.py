"""The error of an update: nothing for one that is sent as it is, something for one that is not."""

from __future__ import annotations

import numpy as np
import pytest

from fieldfold.codec import ErrorFeedback
from fieldfold.codec.profile import PROFILES
from node_app.left_out import share_left_out

DELTA = np.random.default_rng(7).normal(size=4000).astype(np.float32)


def error(profile: str) -> float:
    return share_left_out(ErrorFeedback.start(DELTA.size).encode(DELTA, profile, seed=3))


@pytest.mark.parametrize("profile", PROFILES)
def test_it_is_the_distance_of_what_arrives_from_what_was_meant(profile: str) -> None:
    decoded = ErrorFeedback.start(DELTA.size).encode(DELTA, profile, seed=3).decoded
    assert error(profile) == pytest.approx(np.linalg.norm(DELTA - decoded) / np.linalg.norm(DELTA), rel=1e-4)


def test_without_loss_it_is_nothing() -> None:
    assert error("lossless") == 0


def test_of_an_update_that_changes_nothing_it_is_nothing() -> None:
    assert share_left_out(ErrorFeedback.start(10).encode(np.zeros(10, np.float32), "lossless")) == 0
