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
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import msgspec

TOLERATED = 0.3
"""Share of the witnesses who may be harmed: as many as may lie. Where nobody lies less than .05 are, also where few
know something of their own; weak attacks that cost points harm a third."""
LENGTH = 16
"""Turns between two looks at how far the fleet has come."""
STALLED = 0.03
"""It has stopped to learn when its loss falls by less than this share of its first one from look to look."""
LEARNED = 0.5
"""It has learned something when its loss is below this share of the first one."""
SHORTEST_WAIT, LONGEST_WAIT, LONGER = 16, 2000, 5
"""Turns of the careful rule before a try, and how many times longer it has after one that was undone."""
WAIT_WITHOUT = 128
"""Turns after which the bold rule is tried although the fleet has learned nothing by the careful one."""
WORSE, SLACK = 1.15, 0.025
"""Harmed is whose loss is more than so many times what it was and this share of the fleet's first loss."""
SETTLING, MUCH_WORSE = 12, 3.0
"""For so many turns it has to be so many times: a change of the rule jolts the model, also where nobody lies, since
what the few know comes in all at once."""
ENOUGH = 0.4
"""Reports and witnesses that count at least, as a share of the fleet."""

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
        early: the step count at the first look; None before.
        firsts: the first loss of each node, of a version before that look, however late it comes.
        level: the loss of the fleet at the last look.
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
    early: int | None = None
    firsts: Mapping[str, float] = {}
    level: float = math.inf
    reports: Mapping[str, Report] = {}
    before: Mapping[str, float] = {}


def hear(trial: Trial, node: str, loss: float, base: int, fleet: int) -> Trial:
    """A node of a fleet of so many speaks; NaN where it tells no loss."""
    spoken = trial.spoken if node in trial.spoken else (*trial.spoken, node)
    turn = trial.turn
    if 2 * len(spoken) > fleet:
        turn, spoken = turn + 1, ()
    reports, firsts = trial.reports, trial.firsts
    if math.isfinite(loss) and loss >= 0:
        reports = {**reports, node: Report(loss, base)}
        is_early = trial.early is None or base <= trial.early
        firsts = {**firsts, node: loss} if is_early and node not in firsts else firsts
    return msgspec.structs.replace(trial, turn=turn, spoken=spoken, reports=reports, firsts=firsts)


def without_those_gone(trial: Trial, there: Collection[str]) -> Trial:
    """What nodes said that have been forgotten counts no more: it would stand for how the model is now."""
    if all(node in there for node in trial.reports):
        return trial
    return msgspec.structs.replace(
        trial,
        reports={node: report for node, report in trial.reports.items() if node in there},
        before={node: loss for node, loss in trial.before.items() if node in there},
    )


def judged(trial: Trial, fleet: int, steps: int) -> tuple[Trial, Move]:
    """What comes of it at the step after `steps`."""
    if len(trial.reports) < max(1, ENOUGH * fleet):
        return trial, "on"
    if trial.early is None:
        if not _is_look(trial):
            return trial, "on"
        trial = msgspec.structs.replace(trial, early=steps)
    return _watched(trial, fleet, steps) if trial.bold else _waiting(trial, steps)


def _waiting(trial: Trial, steps: int) -> tuple[Trial, Move]:
    """Under the careful rule: the bold one is tried when that has stopped to help."""
    if not _is_look(trial):
        return trial, "on"
    passed, has_stalled = trial.turn - trial.since, _has_stalled(trial)
    is_time = passed >= trial.wait and (_has_learned(trial) or passed >= WAIT_WITHOUT)
    trial = _looked(trial)
    if not (has_stalled and is_time):
        return trial, "on"
    return _begun(
        trial, steps, bold=True, before={node: report.loss for node, report in trial.reports.items()}
    ), "anchor"


def _watched(trial: Trial, fleet: int, steps: int) -> tuple[Trial, Move]:
    """Under the bold rule: it goes as soon as many are harmed, or when nobody learns by it either."""
    losses = {node: report.loss for node, report in trial.reports.items() if report.base >= trial.first}
    harmed, is_look = _harmed(losses, trial, fleet), _is_look(trial)
    if harmed > TOLERATED or (is_look and _has_stalled(trial) and not _has_learned(trial)):
        has_lasted = trial.turn - trial.since > LONGER**2 * trial.wait
        wait = SHORTEST_WAIT if has_lasted else min(LONGER * trial.wait, LONGEST_WAIT)
        ended = _begun(trial, steps, bold=False, before={})
        return msgspec.structs.replace(ended, wait=wait, level=math.inf), "back"
    if not is_look or harmed > TOLERATED / 2:
        return trial, "on"
    lowest = {**losses, **{node: min(loss, losses.get(node, loss)) for node, loss in trial.before.items()}}
    return msgspec.structs.replace(_looked(trial), before=lowest), "anchor"


def _is_look(trial: Trial) -> bool:
    return trial.turn - trial.looked >= LENGTH


def _looked(trial: Trial) -> Trial:
    return msgspec.structs.replace(trial, looked=trial.turn, level=_level(trial))


def _has_stalled(trial: Trial) -> bool:
    return trial.level - _level(trial) < STALLED * first_level(trial)


def _has_learned(trial: Trial) -> bool:
    return _level(trial) < LEARNED * first_level(trial)


def _harmed(losses: Mapping[str, float], trial: Trial, fleet: int) -> float:
    """The share of the witnesses: of those who have something to lose, since the model was good for them."""
    first = first_level(trial)
    before = {node: loss for node, loss in trial.before.items() if node in losses and loss < first}
    times = MUCH_WORSE if trial.turn - trial.since < SETTLING else WORSE
    worse = sum(losses[node] > times * loss + SLACK * first for node, loss in before.items())
    return worse / max(len(before), ENOUGH * fleet)


def first_level(trial: Trial) -> float:
    """The loss of the fleet when nothing had been learned; 0 while nobody has said one."""
    return statistics.median(trial.firsts.values()) if trial.firsts else 0.0


def _level(trial: Trial) -> float:
    return statistics.median(report.loss for report in trial.reports.values())


def _begun(trial: Trial, steps: int, *, bold: bool, before: Mapping[str, float]) -> Trial:
    return msgspec.structs.replace(
        trial, bold=bold, since=trial.turn, looked=trial.turn, first=steps + 1, before=before
    )
