"""Rows of single runs to the lines of the table, and how many times more one system took than the other."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.against_flower.faults import Outcome
from benchmarks.against_flower.runs import Cost

FLOWER, TIMEOUT, OURS, SHIPPED = "Flower", "Flower, timeout", "fieldfold", "fieldfold, defaults"


class Row(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        run_s: what a local run of a fast gateway takes.
        load: of the machine over the minute before.
        cost: None where it did not come to the target, and `why` says why.
    """

    system: str
    run_s: float
    straggler: bool
    seed: int
    load: float
    cost: Cost | None
    why: str = ""


class Line(msgspec.Struct, frozen=True):
    """A system in one case: medians of the runs that came to the target, NaN where none did."""

    run_s: float
    straggler: bool
    system: str
    runs: int
    reached: int
    seconds: float
    fastest_s: float
    slowest_s: float
    total_s: float
    cpu_s: float
    bytes_up: float
    bytes_down: float
    steps: float
    load: float


class Times(msgspec.Struct, frozen=True):
    """How many times more Flower took than fieldfold in one case."""

    run_s: float
    straggler: bool
    against: str
    seconds: float
    cpu_s: float
    bytes_up: float
    bytes_down: float


def lines(rows: Sequence[Row]) -> list[Line]:
    """A line for each case and system, in the order of the cases."""

    def case(row: Row) -> tuple[float, bool, str]:
        return row.run_s, row.straggler, row.system

    ordered = sorted(rows, key=case)
    return [_line(list(mine)) for _, mine in itertools.groupby(ordered, case)]


def _line(mine: Sequence[Row]) -> Line:
    costs = [row.cost for row in mine if row.cost is not None]

    def middle(value: Callable[[Cost], float]) -> float:
        return statistics.median(map(value, costs)) if costs else math.nan

    return Line(
        run_s=mine[0].run_s,
        straggler=mine[0].straggler,
        system=mine[0].system,
        runs=len(mine),
        reached=len(costs),
        seconds=middle(lambda cost: cost.seconds),
        fastest_s=min((cost.seconds for cost in costs), default=math.nan),
        slowest_s=max((cost.seconds for cost in costs), default=math.nan),
        total_s=middle(lambda cost: cost.total_s),
        cpu_s=middle(lambda cost: cost.cpu_s),
        bytes_up=middle(lambda cost: cost.bytes_up),
        bytes_down=middle(lambda cost: cost.bytes_down),
        steps=middle(lambda cost: cost.steps),
        load=statistics.median(row.load for row in mine),
    )


def times_more(table: Sequence[Line]) -> list[Times]:
    """Flower over fieldfold, in every case that both were in."""
    ours = {(line.run_s, line.straggler): line for line in table if line.system == OURS}
    return [
        Times(
            run_s=line.run_s,
            straggler=line.straggler,
            against=line.system,
            seconds=line.seconds / mine.seconds,
            cpu_s=line.cpu_s / mine.cpu_s,
            bytes_up=line.bytes_up / mine.bytes_up,
            bytes_down=line.bytes_down / mine.bytes_down,
        )
        for line in table
        if line.system in {FLOWER, TIMEOUT} and (mine := ours.get((line.run_s, line.straggler))) is not None
    ]


def show(table: Sequence[Line]) -> None:
    """Prints it, and the ratios below it."""
    print(
        "a run  slow                        runs  to target          spread  from nothing   CPU s        up      down"
    )
    for line in table:
        print(
            f"{line.run_s:3.0f} s  {line.straggler:>4}  {line.system:<20}  {line.reached} of {line.runs}"
            f"  {line.seconds:7.1f} s  {line.fastest_s:5.0f} to {line.slowest_s:3.0f} s  {line.total_s:10.1f} s"
            f"  {line.cpu_s:6.1f}  {line.bytes_up / 1e3:5.0f} kB  {line.bytes_down / 1e3:5.0f} kB"
        )
    for each in times_more(table):
        slow = "one slow" if each.straggler else "none slow"
        print(
            f"{each.run_s:3.0f} s, {slow}: {each.against} took {each.seconds:.1f} times as long,"
            f" {each.cpu_s:.1f} times the CPU, {each.bytes_up:.1f} times the bytes up, {each.bytes_down:.1f} down"
        )


def show_faults(found: dict[str, list[Outcome]]) -> None:
    """What was done, whether the run survived it, how long the next model took, its score, and what was seen."""
    for system, outcomes in found.items():
        print(system)
        for each in outcomes:
            waited = "-" if each.waited_s is None else f"{each.waited_s:.1f} s"
            score = "-" if each.score is None else f"{each.score:.1f}"
            fate = "goes on" if each.survives else "IS LOST"
            print(f"  {each.fault:<40}  {fate}  {waited:>7}  {score:>5}  {each.seen}")
