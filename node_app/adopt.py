"""Take a released model, evaluate it on this gateway's own validation data, and serve the better one. Pure."""

from __future__ import annotations

import math

import msgspec

from fieldfold.params import Vector
from fieldfold.task.manifest import Metric


class Served(msgspec.Struct, frozen=True):
    """The model that predictions are made with.

    Attributes:
        parameters: as they were released, or the personal ones.
        local: the gateway's own values when it was evaluated; empty where the task has none.
        score: the deciding metric; None while there is no validation data.
        personal: whether it is the gateway's own model, pulled towards that version.
    """

    version: int
    parameters: Vector
    local: Vector
    score: float | None
    personal: bool = False

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{'the personal model of ' if self.personal else ''}version {self.version}"


def adopt(newcomer: Served, served: Served | None, metric: Metric) -> Served:
    """The newcomer, unless the one served until now is better on the same data.

    Without validation data the newest that was released is taken; one whose score is not finite never is, if there is
    another. Of a personal and a released model with one score the personal one is, also where it is the older.
    """
    if served is None:
        return newcomer
    if newcomer.score is None:
        return served if newcomer.personal and not served.personal else newcomer
    if newcomer.score == served.score and served.personal:
        return newcomer if newcomer.personal else served
    if not math.isfinite(newcomer.score):
        return served
    if served.score is None or not math.isfinite(served.score):
        return newcomer
    better = newcomer.score <= served.score if metric.better == "lower" else newcomer.score >= served.score
    return newcomer if better else served
