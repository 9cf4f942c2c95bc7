"""The better model on this gateway's own data is the one that is served."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fieldfold.params import as_vector
from fieldfold.task.manifest import Metric
from node_app.adopt import Served, adopt

RMSE = Metric("rmse", "lower", "root")
ACCURACY = Metric("accuracy", "higher")
PARAMETERS, LOCAL = as_vector([1.0, 2.0]), as_vector([3.0])
NAN, INFINITE = math.nan, math.inf


def offered(score: float | None, served: Served | None, metric: Metric = RMSE) -> Served:
    """Version 9 with this score, against the one that is served."""
    return adopt(Served(9, PARAMETERS, LOCAL, score), served, metric)


def served(score: float | None) -> Served:
    return Served(4, as_vector(np.zeros(2)), as_vector([]), score)


def test_the_first_model_is_served_whatever_it_scores() -> None:
    for score in (12.0, None, NAN):
        assert offered(score, None).version == 9


@pytest.mark.parametrize(
    ("metric", "present", "score", "version"),
    [
        (RMSE, 14.0, 13.5, 9),
        (RMSE, 14.0, 14.5, 4),
        (RMSE, 14.0, 14.0, 9),
        (ACCURACY, 0.8, 0.9, 9),
        (ACCURACY, 0.8, 0.7, 4),
        (RMSE, 14.0, NAN, 4),
        (ACCURACY, 0.8, INFINITE, 4),
        (ACCURACY, 0.8, NAN, 4),
        (RMSE, NAN, 14.0, 9),
        (RMSE, None, NAN, 4),
        (RMSE, None, 14.0, 9),
        (RMSE, 14.0, None, 9),
    ],
)
def test_the_better_one_is_kept_and_what_is_not_finite_never_replaces_another(
    metric: Metric, present: float | None, score: float | None, version: int
) -> None:
    chosen = offered(score, served(present), metric)
    assert chosen.version == version


def test_what_is_served_bears_its_version_values_and_score_together() -> None:
    chosen = offered(13.0, served(14.0))
    assert (chosen.version, chosen.score) == (9, 13.0)
    assert chosen.parameters is PARAMETERS
    assert chosen.local is LOCAL
