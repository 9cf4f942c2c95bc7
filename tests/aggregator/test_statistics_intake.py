"""Feature sums of the nodes become the normalisation of the fleet."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator.config import NormalisationConfig
from aggregator.intake.statistics import accept, fuse, is_due
from fieldfold.errors import DataError
from fieldfold.sensors.statistics import sums_of
from fieldfold.wire.messages import Statistics
from tests.aggregator.tiny import bundle

TASK = bundle().digest


def sums(rows: np.ndarray[Any, np.dtype[np.float64]]) -> Statistics:
    found = sums_of([rows], rows.shape[1])
    return Statistics(
        issued=1, task=TASK, count=found.count, total=found.total, total_of_squares=found.total_of_squares
    )


def test_the_fleet_s_mean_and_deviation_are_those_of_all_rows_together() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal((5, -300), (2, 40), (size, 2)) for size in (50, 200, 7)]
    fused = fuse({f"press-{index}": accept(sums(part), 2) for index, part in enumerate(parts)})
    rows = np.concatenate(parts)
    np.testing.assert_allclose(fused.mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(fused.std, rows.std(0), rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": (1.0,)}, "the task has 2"),
        ({"count": (1.0,) * 3, "total": (1.0,) * 3, "total_of_squares": (1.0,) * 3}, "the task has 2"),
        ({"count": (-1.0, 5.0)}, "feature 1: -1.0 is not a number of rows"),
        ({"count": (0.5, 5.0)}, "feature 1: 0.5 is not a number of rows"),
        ({"count": (5.0, 1e300)}, "feature 2: 1e\\+300 is not a number of rows"),
        ({"total": (math.nan, 1.0)}, "feature 1: not finite"),
        ({"total": (1.0, 1e300)}, "feature 2: too large"),
        ({"total_of_squares": (10.0, -1.0)}, "feature 2: too large"),
        ({"total_of_squares": (0.1, 10.0)}, "feature 1: the sum of squares is too small"),
    ],
)
def test_sums_that_no_data_can_have(changes: dict[str, tuple[float, ...]], said: str) -> None:
    honest = Statistics(issued=1, task=TASK, count=(5.0, 5.0), total=(5.0, 5.0), total_of_squares=(10.0, 10.0))
    accept(honest, 2)
    with pytest.raises(DataError, match=said):
        accept(msgspec.structs.replace(honest, **changes), 2)


@pytest.mark.parametrize(
    ("nodes", "waited_s", "due"),
    [(0, 1000.0, False), (1, 29.0, False), (1, 30.0, True), (11, 0.0, False), (12, 0.0, True), (13, 0.0, True)],
)
def test_they_are_released_when_all_have_come_or_patience_ends(nodes: int, waited_s: float, due: bool) -> None:  # noqa: FBT001
    assert is_due(nodes, waited_s, NormalisationConfig(nodes=12, patience_s=30.0)) == due


def test_where_the_number_of_nodes_is_not_known_only_patience_decides() -> None:
    config = NormalisationConfig(nodes=0, patience_s=30.0)
    assert not is_due(1000, 29.9, config)
    assert is_due(1, 30.0, config)
