"""How good the model is on each class where it is used: the nodes' own scores put together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aggregator.records import ClassScore

HEARD_WITHIN_S, HEARD_WITHIN_PACES = 3600.0, 10.0
"""A report counts for an hour, or for ten times what passes between two updates of its node, whichever is longer."""

Table: TypeAlias = NDArray[np.float64]
"""`(classes, 2)`: score and number of examples."""


class Report(NamedTuple):
    """What a node's newest accepted update tells of its base version.

    Attributes:
        task: digest of the bundle.
        at_s: when it came, on a clock that never jumps.
        pace_s: usual time between two of the node's updates; None where only one was heard.
        table: what it tells.
    """

    task: str
    at_s: float
    pace_s: float | None
    table: Table


def heard(reports: Sequence[Report], task: str, now_s: float) -> list[Table]:
    """What is told of a task in reports that are not too old."""
    return [
        report.table
        for report in reports
        if report.task == task
        and now_s - report.at_s <= max(HEARD_WITHIN_S, HEARD_WITHIN_PACES * (report.pace_s or 0.0))
    ]


def by_class(names: Sequence[str], tables: Sequence[Table]) -> tuple[ClassScore, ...]:
    """The score of each class over the nodes that hold examples of it; nothing where nobody reports.

    It is the mean of their scores, weighted by their examples; but no node weighs more than the median one of those
    that hold the class (the lower of two), since how many it holds is its own word: none of n has more than 2/n.
    """
    if not tables:
        return ()
    told = np.stack(tables, axis=-1)
    return tuple(_of_class(name, scores, counts) for name, (scores, counts) in zip(names, told, strict=True))


def worst(scores: Sequence[ClassScore], better: Literal["lower", "higher"]) -> str | None:
    """The name of the class that fares worst; None where fewer than two are known."""
    known = [(each.score, each.name) for each in scores if each.score is not None]
    if len(known) < 2:
        return None
    return (max if better == "lower" else min)(known, key=lambda pair: pair[0])[1]


def _of_class(name: str, scores: NDArray[np.float64], counts: NDArray[np.float64]) -> ClassScore:
    holds = counts > 0
    if not holds.any():
        return ClassScore(name, None, 0, 0)
    mine = counts[holds]
    middle = (len(mine) - 1) // 2
    weights = np.minimum(mine, np.partition(mine, middle)[middle])
    return ClassScore(name, float(scores[holds] @ (weights / weights.sum())), int(mine.sum()), len(mine))
