"""Two rules in turns, judged by the losses that nodes report: which of them is in force, and for how long. Pure.

One of the two is champion. After a while the other is tried for a few turns of the fleet; the nodes that trained from
its versions say with what loss, and each is compared with what it said before the trial. The bold rule stays when few
are worse off than they would be without it, and its trial is broken off, and undone, as soon as many are much worse;
the careful one takes over when some are better off by far more than usual. A challenger that lost waits twice as long
before the next trial. Nobody's word counts more than anybody else's, and what is asked is always how many are better
or worse off, never by how much, so that lies about the loss count for no more than their share.

All losses are in units of the first that the fleet reported, so that thresholds suit any task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

LYING = 0.3
"""Share of the nodes that may lie."""
LENGTH = 8
"""Turns of a trial."""
LONGEST_WAIT = 256
RECENT = 2
"""Turns for which a report says how the model is."""
MUCH_WORSE, WORSE, BETTER = 1.3, 1.15, 0.85
SLACK = 0.02
"""Differences below this share of the first loss are nobody's concern."""
ENOUGH, FEW_VOTES = 0.4, 0.2
"""Votes, as shares of the fleet, that decide a trial and that may break it off."""
GAINING = 0.25
"""Share of the voters who must gain much by the careful rule for it to take over."""
SMOOTHING = 0.6


class Report(msgspec.Struct, frozen=True):
    """The newest that a node has said: the loss, the step count of the version it is of, and when, in turns."""

    loss: float
    base: int
    turn: int


class Trial(msgspec.Struct, frozen=True):
    """Where things are.

    Attributes:
        bold: whether the bold rule is in force; the fleet begins with the careful one.
        challenging: whether the rule in force is the challenger.
        turn: how often more than half of the fleet has spoken, one after the other.
        spoken: who has in this turn.
        since: the turn at which the present period began.
        first: the step count from which on versions are of this period.
        wait: turns that the champion stays alone.
        unit: the first loss of the fleet; 0 before.
        level: smoothed loss of the typical node; -1 before the first.
        levels: those of this period, (turn, level).
        decay: how fast the logarithm of the level fell a turn before the trial.
        level_before, before: level and losses when the trial began.
        best: each node's lowest loss under this champion.
    """

    bold: bool = False
    challenging: bool = False
    turn: int = 0
    spoken: tuple[str, ...] = ()
    since: int = -1
    first: int = 0
    wait: int = 2
    unit: float = 0.0
    reports: Mapping[str, Report] = {}
    level: float = -1.0
    levels: tuple[tuple[int, float], ...] = ()
    decay: float = 0.0
    level_before: float = -1.0
    before: Mapping[str, float] = {}
    best: Mapping[str, float] = {}


def hear(trial: Trial, node: str, loss: float, base: int, fleet: int) -> Trial:
    """A node of a fleet of so many speaks; NaN where it tells no loss."""
    spoken = trial.spoken if node in trial.spoken else (*trial.spoken, node)
    turn = trial.turn
    if 2 * len(spoken) > fleet:
        turn, spoken = turn + 1, ()
    reports = trial.reports
    if math.isfinite(loss) and loss >= 0:
        reports = {**reports, node: Report(loss, base, trial.turn)}
    return msgspec.structs.replace(trial, turn=turn, spoken=spoken, reports=reports)


def judged(trial: Trial, fleet: int, steps: int) -> tuple[Trial, bool]:
    """What comes of it at the step after `steps`; the second is whether all that the trial did is to be undone."""
    trial = _measured(trial, fleet)
    if trial.level < 0:
        return trial, False
    if trial.since < 0:
        trial = msgspec.structs.replace(trial, since=trial.turn)
    if not trial.challenging:
        return _champion(trial, fleet, steps), False
    return _bold_tried(trial, fleet) if trial.bold else (_careful_tried(trial, fleet), False)


def _measured(trial: Trial, fleet: int) -> Trial:
    """With the level of the middle third of the recent reports, where enough are recent."""
    recent = sorted(report.loss for report in trial.reports.values() if report.turn >= trial.turn - RECENT)
    if len(recent) < max(1.0, LYING * fleet):
        return trial
    third = len(recent) // 3
    middle = recent[third : len(recent) - third]
    now = sum(middle) / len(middle)
    level = now if trial.level < 0 else SMOOTHING * trial.level + (1 - SMOOTHING) * now
    return msgspec.structs.replace(trial, level=level, unit=trial.unit or now)


def _champion(trial: Trial, fleet: int, steps: int) -> Trial:
    slack = SLACK * trial.unit
    fresh = {node: report.loss for node, report in trial.reports.items() if report.turn >= trial.since}
    known = [node for node in fresh if node in trial.best]
    much_worse = sum(fresh[node] > MUCH_WORSE * trial.best[node] + 2 * slack for node in known)
    best = {**trial.best, **{node: min(loss, trial.best.get(node, loss)) for node, loss in fresh.items()}}
    levels = (*trial.levels, (trial.turn, trial.level))[-256:]
    trial = msgspec.structs.replace(trial, best=best, levels=levels)
    if trial.bold and much_worse > (1 - LYING) / 2 * max(len(known), ENOUGH * fleet):
        return _crowned(trial, bold=False, wait=2 * trial.wait)
    if trial.turn - trial.since < trial.wait:
        return trial
    return msgspec.structs.replace(
        trial,
        bold=not trial.bold,
        challenging=True,
        since=trial.turn,
        first=steps + 1,
        decay=_decay(trial),
        level_before=trial.level,
        before={node: report.loss for node, report in trial.reports.items()},
    )


def _decay(trial: Trial) -> float:
    """Of the logarithm of the level, a turn, lately."""
    then, level = next(each for each in trial.levels if each[0] >= trial.turn - LENGTH)
    if trial.turn <= then + 1:
        return 0.0
    tiny = 1e-6 * trial.unit
    return max(0.0, math.log((level + tiny) / (trial.level + tiny)) / (trial.turn - then))


def _bold_tried(trial: Trial, fleet: int) -> tuple[Trial, bool]:
    passed, slack, losses = trial.turn - trial.since, SLACK * trial.unit, _votes(trial)
    tolerated = (1 - LYING) / 2
    much_worse = sum(now > MUCH_WORSE * before + 2 * slack for now, before in losses)
    fails = len(losses) >= FEW_VOTES * fleet and much_worse > tolerated * max(len(losses), ENOUGH * fleet)
    enough = bool(losses) and len(losses) >= ENOUGH * fleet
    if not (fails or (passed >= LENGTH and enough) or passed >= 3 * LENGTH):
        return trial, False
    usual = math.exp(-trial.decay * passed)
    worse = sum(now > WORSE * before * usual + slack for now, before in losses)
    if not fails and enough and worse <= tolerated * len(losses):
        return _crowned(trial, bold=True, wait=2 * LENGTH), False
    undone = msgspec.structs.replace(trial, level=trial.level_before, reports={})
    return _crowned(undone, bold=False, wait=2 * trial.wait), True


def _careful_tried(trial: Trial, fleet: int) -> Trial:
    passed, slack, losses = trial.turn - trial.since, SLACK * trial.unit, _votes(trial)
    enough = bool(losses) and len(losses) >= ENOUGH * fleet
    if not ((passed >= LENGTH and enough) or passed >= 3 * LENGTH):
        return trial
    usual = math.exp(-trial.decay * passed / 2)
    better = sum(now < BETTER * before * usual - slack for now, before in losses)
    if enough and better >= GAINING * len(losses):
        return _crowned(trial, bold=False, wait=2 * LENGTH)
    return _crowned(trial, bold=True, wait=2 * trial.wait)


def _votes(trial: Trial) -> list[tuple[float, float]]:
    """Loss from a version of the trial and before it, of each node that told both."""
    return [
        (report.loss, trial.before[node])
        for node, report in trial.reports.items()
        if report.base >= trial.first and node in trial.before
    ]


def _crowned(trial: Trial, *, bold: bool, wait: int) -> Trial:
    return msgspec.structs.replace(
        trial,
        bold=bold,
        challenging=False,
        since=trial.turn,
        wait=min(wait, LONGEST_WAIT),
        levels=(),
        before={},
        best={node: report.loss for node, report in trial.reports.items()},
    )
