"""The nodes of a fleet, drawn from a seed: how fast, how connected, when they are there, and who lies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregator.simulate.scenario import AvailabilityConfig, Scenario

_FLEET, _RUNS = 1, 2
"""Parts of the seed's randomness that do not depend on one another."""


class Fleet(NamedTuple):
    """One number a node, in arrays (nodes,).

    Attributes:
        update_s: median time of a local run.
        up_bytes_s, down_bytes_s: inf without a limit.
        day_begins_s: when the node is switched on, within a day.
        is_slow: among the slowest that the scenario names.
        is_lying: sends what the scenario's attack says.
        is_false: lies about its loss.
    """

    update_s: NDArray[np.float64]
    up_bytes_s: NDArray[np.float64]
    down_bytes_s: NDArray[np.float64]
    day_begins_s: NDArray[np.float64]
    is_slow: NDArray[np.bool_]
    is_lying: NDArray[np.bool_]
    is_false: NDArray[np.bool_]


def draw(scenario: Scenario, seed: int) -> Fleet:
    """The fleet of a seed. Attackers hold no data that only slow nodes have, where the scenario has such data."""
    rng = np.random.default_rng([seed, _FLEET])
    nodes, speed, link, attack = scenario.nodes, scenario.speed, scenario.link, scenario.attack
    update_s = speed.update_s * np.exp(rng.normal(0, speed.spread, nodes))
    is_slow = np.zeros(nodes, np.bool_)
    is_slow[np.argsort(update_s)[nodes - round(speed.slow_share * nodes) :]] = True
    update_s[is_slow] *= speed.slow_factor
    rates = np.exp(rng.normal(0, link.spread, nodes)) * 1000 / 8
    up, down = (kbit * rates if kbit else np.full(nodes, np.inf) for kbit in (link.up_kbit_s, link.down_kbit_s))
    day_begins_s = rng.uniform(0, max(scenario.availability.day_s, 1), nodes)
    is_lying = np.zeros(nodes, np.bool_)
    if attack.kind != "none":
        others = np.flatnonzero(~is_slow) if scenario.partition.slow_only else np.arange(nodes)
        order = others[np.argsort(update_s[others])] if attack.who == "fastest" else rng.permutation(others)
        is_lying[order[: round(attack.share * nodes)]] = True
        update_s[is_lying] /= attack.speed_up
    is_false = is_lying.copy()
    is_false[rng.permutation(nodes)[: round(attack.voters * nodes)]] = True
    return Fleet(update_s, up, down, day_begins_s, is_slow, is_lying, is_false)


def luck(seed: int, node: int, run: int) -> tuple[float, float]:
    """Of one run: a standard normal number for its time, and a uniform one for whether it is lost."""
    rng = np.random.default_rng([seed, _RUNS, node, run])
    return float(rng.standard_normal()), float(rng.uniform())


def switched_on_at(now_s: float, begins_s: float, availability: AvailabilityConfig) -> float:
    """The first moment from now on at which a node is there, whose day begins at `begins_s`."""
    if not availability.day_s:
        return now_s
    into_day_s = (now_s - begins_s) % availability.day_s
    return (
        now_s if into_day_s < availability.on_share * availability.day_s else now_s + availability.day_s - into_day_s
    )
