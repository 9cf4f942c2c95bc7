"""Each method at the same rates, on a fleet that no table is made of."""

from __future__ import annotations

import msgspec

from aggregator.fold.fedasync import FedAsync
from aggregator.fold.methods import AnyMethod
from aggregator.simulate.report import summarise
from aggregator.simulate.run import Outcome
from aggregator.simulate.scenario import MethodConfig, Scenario
from fieldfold.task.manifest import Metric

RATES = (0.1, 0.2, 0.4, 1.0)
SEED = 10
SHIPPED = "slots-shipped"
"""Untuned, where what was tuned differs from it."""
SHARE_OF_TIME = 0.5
"""Rates are compared on the first half of the time that a table's run has."""


class Tried(msgspec.Struct, frozen=True):
    """A method at a rate: when it was at the target, if it was, and where it ended."""

    method: str
    rate: float
    to_target_s: float | None
    final: float


def widened(scenario: Scenario) -> Scenario:
    """The same with every method at every rate, on the seed for tuning."""
    methods = tuple(
        MethodConfig(f"{method.name}-{place}", _at(method.fold, rate))
        for method in scenario.methods
        if method.name != SHIPPED
        for place, rate in enumerate(RATES)
    )
    return msgspec.structs.replace(scenario, methods=methods, seeds=(SEED,), until_s=SHARE_OF_TIME * scenario.until_s)


def tried(outcomes: list[Outcome], metric: Metric, target: float) -> list[Tried]:
    """A line each."""
    rows = []
    for outcome in outcomes:
        name, _, place = outcome.method.rpartition("-")
        found = summarise(outcome.points, metric.better, target)
        rows.append(Tried(name, RATES[int(place)], found.to_target_s, found.final))
    return rows


def _at(fold: AnyMethod, rate: float) -> AnyMethod:
    """The mixing weight is what FedAsync has for a rate."""
    key = "alpha" if isinstance(fold, FedAsync) else "server_learning_rate"
    changed: AnyMethod = msgspec.structs.replace(fold, **{key: rate})
    return changed
