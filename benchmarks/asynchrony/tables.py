"""What the runs come to: times beside waiting, accuracy on what only the slow know, and what attacks cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from aggregator.simulate.report import Summary, summarise
from aggregator.simulate.run import Outcome
from fieldfold.task.manifest import Metric


class Speed(msgspec.Struct, frozen=True):
    """A method where a fifth of the nodes is ten times slower; medians over seeds.

    Attributes:
        to_target_s, slowest_s: of the median run and of the slowest seed; None where it did not get there.
        faster_than_all, faster_than_over: than FedAvg of all and of the first 77 %; None where one did not get there,
            and where only FedAvg did not, at least what fits into its run.
        final: median, and `worst` over the seeds.
        behind: final score less that of waiting for all where nobody is slow; positive is better.
    """

    method: str
    to_target_s: float | None
    slowest_s: float | None
    faster_than_all: float | None
    faster_than_over: float | None
    final: float
    worst: float
    behind: float


def speeds(outcomes: Sequence[Outcome], even: Sequence[Outcome], metric: Metric, target: float) -> list[Speed]:
    """One a method; `even` are the runs of FedAvg without slow nodes."""
    reference = statistics.median(_summary(outcome, metric, None).final for outcome in even)
    found = {name: [_summary(run, metric, target) for run in runs] for name, runs in _by_method(outcomes).items()}
    times = {name: _median_time(runs) for name, runs in found.items()}
    ends = {name: max(run.seconds for run in runs) for name, runs in _by_method(outcomes).items()}
    sign = -1 if metric.better == "lower" else 1

    def faster(name: str, than: str) -> float | None:
        mine = times[name]
        return (times[than] or ends[than]) / mine if mine else None

    return [
        Speed(
            method=name,
            to_target_s=times[name],
            slowest_s=_slowest(runs),
            faster_than_all=faster(name, "fedavg-all"),
            faster_than_over=faster(name, "fedavg-over"),
            final=(middle := statistics.median(run.final for run in runs)),
            worst=_worst([run.final for run in runs], metric),
            behind=sign * (middle - reference),
        )
        for name, runs in found.items()
    ]


class Fairness(msgspec.Struct, frozen=True):
    """Accuracy at the end, over all classes and over those that only slow nodes hold: median and worst seed."""

    method: str
    overall: float
    slow_only: float
    slow_only_worst: float


def fairness(outcomes: Sequence[Outcome], metric: Metric) -> list[Fairness]:
    """One a method."""
    rows = []
    for name, runs in _by_method(outcomes).items():
        found = [_summary(run, metric, None) for run in runs]
        slow = [each.slow_only or 0.0 for each in found]
        overall = statistics.median(each.final for each in found)
        rows.append(Fairness(name, overall, statistics.median(slow), min(slow)))
    return rows


TRUSTED = "fleet"


class Robustness(msgspec.Struct, frozen=True):
    """A method under every attack.

    Attributes:
        clean: median of its runs without one.
        mean: the same of the method that a trusted fleet has.
        cells, worst: attack -> median of the seeds, and the worst one.
        mean_loss, worst_loss: of the cells, in points below `clean`.
    """

    method: str
    clean: float
    mean: float
    cells: dict[str, float]
    worst: dict[str, float]
    mean_loss: float
    worst_loss: float


def robustness(
    clean: Sequence[Outcome], attacked: Mapping[str, Sequence[Outcome]], metric: Metric
) -> list[Robustness]:
    """One a method in `attacked`, which has the runs of each attack; `clean` has those of `fleet` besides."""
    rows = []
    unattacked = {name: statistics.median(found) for name, found in finals(clean, metric).items()}
    scores = {attack: finals(outcomes, metric) for attack, outcomes in attacked.items()}
    for name in next(iter(scores.values())):
        own = unattacked[name]
        cells = {attack: statistics.median(found[name]) for attack, found in scores.items()}
        worst = {attack: _worst(found[name], metric) for attack, found in scores.items()}
        losses = [100 * (own - score) for score in cells.values()]
        rows.append(Robustness(name, own, unattacked[TRUSTED], cells, worst, statistics.fmean(losses), max(losses)))
    return rows


def finals(outcomes: Iterable[Outcome], metric: Metric) -> dict[str, list[float]]:
    """The score at the end of each seed, by method."""
    return {name: [_summary(run, metric, None).final for run in runs] for name, runs in _by_method(outcomes).items()}


def _summary(outcome: Outcome, metric: Metric, target: float | None) -> Summary:
    return summarise(outcome.points, metric.better, target)


def _by_method(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.method, []).append(outcome)
    return found


def _median_time(runs: Sequence[Summary]) -> float | None:
    """A run that never got there is the last."""
    times = sorted(run.to_target_s if run.to_target_s is not None else float("inf") for run in runs)
    middle = statistics.median_high(times)
    return None if middle == float("inf") else middle


def _slowest(runs: Sequence[Summary]) -> float | None:
    times = [run.to_target_s for run in runs if run.to_target_s is not None]
    return max(times) if len(times) == len(runs) else None


def _worst(scores: Sequence[float], metric: Metric) -> float:
    return max(scores) if metric.better == "lower" else min(scores)
