"""Take a released model, evaluate it on this gateway's own validation data, and serve the better one. Pure."""

from __future__ import annotations

import math

import msgspec

from fieldfold.params import Vector
from fieldfold.task.manifest import Metric
from fieldfold.task.runtime import Evaluation


class Served(msgspec.Struct, frozen=True):
    """The model that predictions are made with. `score` is None while there is no validation data."""

    version: int
    parameters: Vector
    score: float | None


def adopt(
    version: int, parameters: Vector, found: Evaluation | None, served: Served | None, metric: Metric
) -> Served:
    """The newcomer, unless the one served until now is better on the same data.

    Without validation data the newest is taken; one whose score is not finite never is, if there is another.
    """
    score = None if found is None else found.metrics[metric.name]
    newcomer = Served(version, parameters, score)
    if served is None or score is None:
        return newcomer
    if not math.isfinite(score):
        return served
    if served.score is None or not math.isfinite(served.score):
        return newcomer
    better = score <= served.score if metric.better == "lower" else score >= served.score
    return newcomer if better else served
