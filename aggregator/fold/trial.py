"""A bold rule on probation: when it is tried beside a careful one, and when what it did is undone. Pure.

The careful rule begins. Once the losses of the fleet have stopped falling under it, so that any harm would show, the
bold one takes over, and stays as long as few nodes are harmed: those for which the model has become clearly worse
than where it may come back to. When many are, the model goes back there, and the careful rule waits longer than
before until the next try.

What is asked is always how many are harmed, never how much in all, so that lies about the loss count for no more than
the share of those who lie.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

LYING = 0.3
"""Share of the nodes that may lie."""
TOLERATED = (1 - LYING) / 2
"""Share of the voters who may be harmed: half of those who do not lie."""
LENGTH = 8
"""Turns between two looks at where the fleet stands."""
SHORTEST_WAIT, LONGEST_WAIT, LONGER = 8, 512, 3
STALLED = 0.04
"""The fleet has stopped learning when its loss falls by less than this share of its first one in `LENGTH` turns."""
LEARNED, LONGEST_WITHOUT = 0.5, 128
"""It has learned something when its loss is below this share of the first."""
WORSE, SLACK = 1.25, 0.03
"""Harmed is whose loss is so many times what it was, and by this share of the fleet's first loss more."""
ENOUGH = 0.4
"""Votes that count at least, as a share of the fleet."""

Move: TypeAlias = Literal["on", "anchor", "back"]
"""What becomes of the model: it goes on; it may come back here later; it goes back to where it last might."""


class Report(msgspec.Struct, frozen=True):
    """The newest that a node has said: the loss, and the step count of the version it is of."""

    loss: float
    base: int


class Trial(msgspec.Struct, frozen=True):
    """Where things are.

    Attributes:
        bold: whether the bold rule is in force.
        turn: how often more than half of the fleet has spoken, one after the other.
        spoken: who has in this turn.
        since: the turn at which the present rule began.
        first: the step count from which on versions are of the present rule.
        looked: the turn of the last look.
        wait: turns that the careful rule has at least.
        unit: the first loss of the fleet; 0 before.
        level: its loss at the last look.
        reports: of each node.
        before: losses where the model may come back to; the lowest since the bold rule began.
    """

    bold: bool = False
    turn: int = 0
    spoken: tuple[str, ...] = ()
    since: int = 0
    first: int = 0
    looked: int = 0
    wait: int = SHORTEST_WAIT
    unit: float = 0.0
    level: float = math.inf
    reports: Mapping[str, Report] = {}
    before: Mapping[str, float] = {}


def hear(trial: Trial, node: str, loss: float, base: int, fleet: int) -> Trial:
    """A node of a fleet of so many speaks; NaN where it tells no loss."""
    spoken = trial.spoken if node in trial.spoken else (*trial.spoken, node)
    turn = trial.turn
    if 2 * len(spoken) > fleet:
        turn, spoken = turn + 1, ()
    reports = trial.reports
    if math.isfinite(loss) and loss >= 0:
        reports = {**reports, node: Report(loss, base)}
    return msgspec.structs.replace(trial, turn=turn, spoken=spoken, reports=reports)


def judged(trial: Trial, fleet: int, steps: int) -> tuple[Trial, Move]:
    """What comes of it at the step after `steps`."""
    if len(trial.reports) < max(1, ENOUGH * fleet):
        return trial, "on"
    if not trial.unit:
        trial = msgspec.structs.replace(trial, unit=_level(trial), since=trial.turn)
    return _watched(trial, fleet, steps) if trial.bold else _waiting(trial, steps)


def _waiting(trial: Trial, steps: int) -> tuple[Trial, Move]:
    """Under the careful rule: the bold one is tried when that has stopped to help."""
    if trial.turn - trial.looked < LENGTH:
        return trial, "on"
    level = _level(trial)
    has_stalled = trial.level - level < STALLED * trial.unit
    if level > LEARNED * trial.unit and trial.turn - trial.since < LONGEST_WITHOUT:
        has_stalled = False
    trial = msgspec.structs.replace(trial, level=level, looked=trial.turn)
    if not has_stalled or trial.turn - trial.since < trial.wait:
        return trial, "on"
    losses = {node: report.loss for node, report in trial.reports.items()}
    return _begun(trial, steps, bold=True, before=losses), "anchor"


def _watched(trial: Trial, fleet: int, steps: int) -> tuple[Trial, Move]:
    """Under the bold rule: it goes as soon as many are harmed."""
    losses = {node: report.loss for node, report in trial.reports.items() if report.base >= trial.first}
    harmed = _harmed(losses, trial, fleet)
    level = _level(trial)
    is_look = trial.turn - trial.looked >= LENGTH
    learns_not = is_look and level > LEARNED * trial.unit and trial.level - level < STALLED * trial.unit
    if harmed > TOLERATED or learns_not:
        lasted = trial.turn - trial.since
        wait = SHORTEST_WAIT if lasted > 10 * trial.wait else min(LONGER * trial.wait, LONGEST_WAIT)
        ended = _begun(trial, steps, bold=False, before={})
        return msgspec.structs.replace(ended, wait=wait, level=math.inf), "back"
    if not is_look or harmed > TOLERATED / 2:
        return trial, "on"
    lowest = {**losses, **{node: min(loss, losses.get(node, loss)) for node, loss in trial.before.items()}}
    return msgspec.structs.replace(trial, looked=trial.turn, level=level, before=lowest), "anchor"


def _harmed(losses: Mapping[str, float], trial: Trial, fleet: int) -> float:
    both = [(loss, trial.before[node]) for node, loss in losses.items() if node in trial.before]
    worse = sum(loss > WORSE * before + SLACK * trial.unit for loss, before in both)
    return worse / max(len(both), ENOUGH * fleet)


def _level(trial: Trial) -> float:
    return statistics.median(report.loss for report in trial.reports.values())


def _begun(trial: Trial, steps: int, *, bold: bool, before: Mapping[str, float]) -> Trial:
    return msgspec.structs.replace(
        trial, bold=bold, since=trial.turn, looked=trial.turn, first=steps + 1, before=before
    )
