"""Which faults come when, and whom they meet: drawn from a seed, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

Kind = Literal["kill", "stop", "wipe", "cut", "truncate", "delay", "swallow", "clock", "disk"]
LARGEST_JUMP_S = 10 * 365 * 86_400.0
MEAN_GAP_S = 1.0

SHARES: dict[Kind, int] = {
    "kill": 30,
    "stop": 18,
    "wipe": 5,
    "cut": 14,
    "truncate": 9,
    "delay": 6,
    "swallow": 4,
    "clock": 5,
    "disk": 9,
}
"""How many of a hundred."""


class Fault(msgspec.Struct, frozen=True):
    """One fault.

    Attributes:
        kind: `kill` is kill -9; `stop` SIGSTOP; `wipe` takes the broker's state away while it is down; `cut`,
            `truncate`, `delay` and `swallow` happen to the network; `clock` is a jump of the wall clock; `disk`
            lets nothing be written any more.
        target: a process, or whose network; of `wipe` the broker.
        after_s: since the fault before it began.
        lasts_s: until it is over, or the killed process is started again.
        size: bytes that still come through (`truncate`), seconds (`clock`, `delay`), else 0.
    """

    kind: Kind
    target: str
    after_s: float
    lasts_s: float
    size: float = 0.0


def draw(seed: int, count: int, nodes: Sequence[str]) -> list[Fault]:
    """`count` faults; aggregator and broker are met more often than any one node."""
    rng = random.Random(seed)  # noqa: S311 - guards nothing, and can be had again
    kinds = list(SHARES)
    return [_one(rng, rng.choices(kinds, list(SHARES.values()))[0], nodes) for _ in range(count)]


def _one(rng: random.Random, kind: Kind, nodes: Sequence[str]) -> Fault:
    processes = [*nodes, *["aggregator"] * 3, *["broker"] * 2]
    target = rng.choice(processes if kind in ("kill", "stop") else [*nodes, *["aggregator"] * 3])
    after_s = rng.expovariate(1 / MEAN_GAP_S)
    if kind == "wipe":
        return Fault(kind, "broker", after_s, rng.uniform(0.0, 1.0))
    lasts_s = {"kill": 2.0, "stop": 4.0, "delay": 4.0, "swallow": 5.0, "disk": 5.0}.get(kind, 0.0)
    size = {
        "truncate": float(rng.randrange(1, 20_000)),
        "delay": rng.uniform(0.01, 0.3),
        "clock": rng.uniform(-LARGEST_JUMP_S, LARGEST_JUMP_S),
    }.get(kind, 0.0)
    return Fault(kind, target, after_s, rng.uniform(0.2, 1.0) * lasts_s, size)
