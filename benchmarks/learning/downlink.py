"""How the server's model comes to the nodes, and what that costs who follows, who slept and who is new."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from aggregator.release.model import advance, snapshot
from aggregator.release.way import deltas_from, snapshot_is_due
from fieldfold.params import Vector

Broadcast: TypeAlias = Callable[[Vector, Vector], tuple[int, Vector]]
"""The server's model and what nodes hold, both (n,), to the bytes sent and what nodes then hold."""

SLEPT_VERSIONS = 50
SNAPSHOT_EVERY = 100

_RUN = "0" * 16


def exact(model: Vector, _released: Vector) -> tuple[int, Vector]:
    """The whole model as float32."""
    return model.nbytes, model


def quantised(profile: str) -> Broadcast:
    """Q(x - x_hat), as aggregator/release makes it."""

    def broadcast(model: Vector, released: Vector) -> tuple[int, Vector]:
        release = advance(model, released, 0, _RUN, profile)
        return len(release.delta), release.released

    return broadcast


class Downlink(msgspec.Struct, frozen=True):
    """Bytes that a node receives, means over the versions of a run.

    Attributes:
        following: for one version, by a node that holds the one before.
        slept: after 50 versions, by the way that the aggregator offers: deltas, or a snapshot and what came since.
        newcomer: the newest snapshot and what came since.
        whole: the model as float32.
    """

    following: float
    slept: float
    newcomer: float
    whole: int


def received(deltas: Sequence[int], released: Sequence[Vector]) -> Downlink:
    """What nodes receive in a run whose versions 1, 2, ... have these deltas and parameters (at least 50)."""
    costs = dict(enumerate(deltas, 1))
    shelved = since = size = lowest = 0
    slept, newcomer = [], []
    for version, parameters in enumerate(released, 1):
        since += costs[version]
        if snapshot_is_due(since, version - shelved, parameters.size, SNAPSHOT_EVERY):
            shelved, since, size = version, 0, len(snapshot(parameters, version, _RUN))
            lowest = deltas_from(costs, shelved, size)
        if version < SLEPT_VERSIONS or not size:
            continue
        newcomer.append(size + since)
        held = version - SLEPT_VERSIONS
        slept.append(sum(deltas[held:version]) if held >= lowest else size + since)
    return Downlink(statistics.mean(deltas), statistics.mean(slept), statistics.mean(newcomer), released[-1].nbytes)
