"""How good the model is where it is used: what the nodes say of it on their own data."""

from __future__ import annotations

from typing import Literal

import pytest

from aggregator.ledger.records import Decision
from aggregator.status import Spread, Tally


def tally(*scores: float | None) -> Tally:
    told = Tally({})
    for number, score in enumerate(scores):
        row = Decision("task", f"press-{number}", 1, "", 0, 100, accepted=True, size_bytes=10, score=score)
        told.decided(row)
    return told


@pytest.mark.parametrize(("better", "worst"), [("lower", 19.5), ("higher", 1.5)])
def test_the_worst_tenth_is_the_worst_by_the_metric(better: Literal["lower", "higher"], worst: float) -> None:
    assert tally(*range(1, 21)).scores(better) == Spread(10.5, worst)


def test_of_a_small_fleet_it_is_the_worst_gateway() -> None:
    assert tally(3.0, 1.0, 2.0).scores("lower") == Spread(2.0, 3.0)


def test_gateways_without_validation_data_are_left_out() -> None:
    assert tally(None, 2.0, None).scores("lower") == Spread(2.0, 2.0)
    assert tally(None).scores("lower") is None


def test_the_newest_word_of_a_gateway_counts() -> None:
    told = tally(5.0)
    told.decided(Decision("task", "press-0", 2, "", 0, 100, accepted=True, size_bytes=10, score=4.0))
    assert told.scores("lower") == Spread(4.0, 4.0)
