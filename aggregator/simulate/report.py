"""What came of a comparison: a table for people, lines of JSON, and a picture of scores over virtual time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from aggregator.simulate.run import Outcome, Point
from fieldfold.cli.figures import size
from fieldfold.errors import ConfigError, StoreError

IN_A_ROW = 3
"""A target counts as reached when so many scores after another reach it; the first of them tells the time."""
LAST_SHARE = 0.2
"""The final score is the mean over this share of the scores."""

T = TypeVar("T")


class Summary(msgspec.Struct, frozen=True):
    """A run in a line.

    Attributes:
        final, slow_only: means over the last fifth of the scores.
        to_target_s, updates_to_target: None where the target was not reached or there is none.
    """

    final: float
    slow_only: float | None
    to_target_s: float | None
    updates_to_target: int | None


def summarise(points: Sequence[Point], better: str, target: float | None) -> Summary:
    """Of a run's scores; `better` is `lower` or `higher`."""
    last = points[-max(1, round(LAST_SHARE * len(points))) :]
    slow = [point.slow_only for point in last if point.slow_only is not None]
    reached = _reached(points, better, target)
    return Summary(
        final=statistics.fmean(point.overall for point in last),
        slow_only=statistics.fmean(slow) if slow else None,
        to_target_s=reached.at_s if reached else None,
        updates_to_target=reached.updates if reached else None,
    )


def _reached(points: Sequence[Point], better: str, target: float | None) -> Point | None:
    if target is None:
        return None
    is_there = [point.overall <= target if better == "lower" else point.overall >= target for point in points]
    for place, point in enumerate(points[: len(points) - IN_A_ROW + 1]):
        if all(is_there[place : place + IN_A_ROW]):
            return point
    return None


def table(outcomes: Iterable[Outcome], metric: str, better: str, target: float | None) -> list[str]:
    """One line a method: medians over its seeds, and the worst final score."""
    runs = list(outcomes)
    has_slow = any(point.slow_only is not None for outcome in runs for point in outcome.points)
    goal = [] if target is None else [f"time to {target:g}", "updates"]
    slow = ["slow-only"] if has_slow else []
    lines = [["method", "runs", *goal, metric, "worst", *slow, "versions", "refused", "up", "down"]]
    for name in dict.fromkeys(outcome.method for outcome in runs):
        mine = [outcome for outcome in runs if outcome.method == name]
        found = [summarise(outcome.points, better, target) for outcome in mine]
        lines.append(
            [name, str(len(mine)), *_scores(found, better, has_target=bool(goal), has_slow=has_slow), *_costs(mine)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells)
        ).rstrip()
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]


def _scores(found: Sequence[Summary], better: str, *, has_target: bool, has_slow: bool) -> list[str]:
    finals = [each.final for each in found]
    cells = [f"{statistics.median(finals):.4g}", f"{(max if better == 'lower' else min)(finals):.4g}"]
    if has_target:
        time = _median(found, lambda each: each.to_target_s, "{:,.0f} s")
        cells = [time, _median(found, lambda each: each.updates_to_target, "{:,.0f}"), *cells]
    return [*cells, _median(found, lambda each: each.slow_only, "{:.4g}")] if has_slow else cells


def _costs(mine: Sequence[Outcome]) -> list[str]:
    return [
        f"{statistics.median(outcome.versions for outcome in mine):,.0f}",
        f"{statistics.median(outcome.stale + outcome.too_long for outcome in mine):,.0f}",
        size(statistics.median(outcome.bytes_up for outcome in mine)),
        size(statistics.median(outcome.bytes_down for outcome in mine)),
    ]


def _median(found: Sequence[T], value: Callable[[T], float | None], form: str) -> str:
    """Of the seeds; a run that never got there is the last of them."""
    values = sorted((float("inf") if (one := value(each)) is None else one) for each in found)
    middle = statistics.median_high(values)
    return "never" if middle == float("inf") else form.format(middle)


def read(path: Path, fingerprint: str) -> list[Outcome]:
    """Outcomes that an earlier call wrote for the very same scenario; none where there is no file.

    Raises:
        StoreError: when the file is of another scenario, or not ours.
    """
    if not path.exists():
        return []
    try:
        first, *lines = path.read_bytes().splitlines()
        said = msgspec.json.decode(first, type=dict[str, str])["scenario"]
        found = [msgspec.json.decode(line, type=Outcome) for line in lines if line.endswith(b"}")]
    except (ValueError, KeyError, msgspec.DecodeError):
        raise StoreError(f"{path}: holds no results of a simulation", "give another --out, or remove it") from None
    if said != fingerprint:
        raise StoreError(f"{path}: holds results of another scenario", "give another --out, or remove it")
    return found


def write(path: Path, fingerprint: str, outcomes: Sequence[Outcome]) -> None:
    """All outcomes so far, a line each, in place of those before.

    Raises:
        StoreError: when it cannot be written.
    """
    lines = [msgspec.json.encode({"scenario": fingerprint}), *map(msgspec.json.encode, outcomes)]
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_bytes(b"\n".join(lines) + b"\n")
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}", "give another --out") from None


def draw(path: Path, outcomes: Sequence[Outcome], metric: str, target: float | None) -> None:
    """Scores over virtual time as a PNG, a line a run, a colour a method.

    Raises:
        ConfigError: when matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 -- 60 MB that only a picture needs
    except ImportError:
        raise ConfigError("a picture needs matplotlib", "pip install 'fieldfold[simulate]'") from None
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(dict.fromkeys(outcome.method for outcome in outcomes)):
        for turn, outcome in enumerate(each for each in outcomes if each.method == name):
            times = [point.at_s for point in outcome.points]
            scores = [point.overall for point in outcome.points]
            axes.plot(times, scores, color=f"C{number % 10}", label=None if turn else name, linewidth=1.2)
    if target is not None:
        axes.axhline(target, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("virtual seconds")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    figure.savefig(path)
