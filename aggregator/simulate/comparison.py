"""All runs of a scenario, one after the other; what was finished before is not run again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple, TextIO

import msgspec

from aggregator.simulate import report
from aggregator.simulate.run import Outcome, Simulation
from aggregator.simulate.scenario import MethodConfig, Scenario
from aggregator.simulate.workers import Workers
from fieldfold.cli.progress import Progress
from fieldfold.task.manifest import Metric


class Comparison(NamedTuple):
    """What came of the runs, and the metric that they are scored by."""

    outcomes: list[Outcome]
    metric: Metric


def compare(scenario: Scenario, base: Path, results: Path, processes: int | None, stream: TextIO) -> Comparison:
    """Runs each method with each seed; `results` holds what is finished, and `stream` is told how far it is.

    Args:
        scenario: paths in it are relative to `base`.
        base: a folder.
        results: a file; see `report.write`.
        processes: that train at once; None for one a core.
        stream: for people.

    Raises:
        FieldfoldError: when the data is not what the task needs, or `results` holds something else.
    """
    with Workers(scenario, base, processes) as workers:
        fingerprint = _fingerprint(scenario, workers.bundle.digest)
        outcomes = report.read(results, fingerprint)
        done = {(outcome.method, outcome.seed) for outcome in outcomes}
        for seed in scenario.seeds:
            for method in scenario.methods:
                if (method.name, seed) not in done:
                    outcomes.append(_run(method, seed, workers, stream))
                    report.write(results, fingerprint, outcomes)
        wanted = [outcome for outcome in outcomes if outcome.seed in scenario.seeds]
        return Comparison(wanted, workers.bundle.manifest.metrics[0])


def _fingerprint(scenario: Scenario, task: str) -> str:
    """Of all that a run depends on but its seed, so that results stay when there are more seeds."""
    return hashlib.sha256(repr(msgspec.structs.replace(scenario, seeds=())).encode() + task.encode()).hexdigest()[:16]


def _run(method: MethodConfig, seed: int, workers: Workers, stream: TextIO) -> Outcome:
    scenario = workers.scenario
    stream.write(f"{method.name}, seed {seed}\n")
    by_updates = bool(scenario.updates)
    total = scenario.updates or round(scenario.until_s)
    with Progress("updates" if by_updates else "virtual seconds", total, stream) as progress:
        return Simulation(method, seed, workers).run(
            lambda now_s, updates: progress(updates if by_updates else round(now_s))
        )
