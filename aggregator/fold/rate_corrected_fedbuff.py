"""FedBuff in which a slow node's voice is as loud as a fast one's.

As FedBuff (see fedbuff.py), but a step waits for K *distinct* nodes, and a delta is weighted by its node's pace
instead of its staleness: r_i = min(r_max, T_i * mean_j(1 / T_j)), where T_i is a moving average of the arrivals (of
all nodes) between two arrivals of node i. Over a long time every node then moves the model equally, however often
it sends. Counting arrivals rather than seconds keeps the fold replayable and needs no clock. A delta that replaces
one of its own node that still waits is no arrival: the node is heard once a step, however often it speaks.

With `weigh_examples` a delta also counts n_i / mean_j(n_j), by the examples that the nodes say they hold; since that
is only what they say, at most MAX_SHARE. With `q` it counts (f_i / mean_j(f_j))^q, by the losses that they tell, at
most MAX_SHARE as well, so that who is served badly counts more (q-FedAvg; Li et al., "Fair Resource Allocation in
Federated Learning", ICLR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec

from aggregator.fold.buffered import Buffered, Memory, Waiting
from aggregator.fold.contribution import Contribution, Step

PACE_MEMORY = 0.7
"""Share of the old value in the moving average of T_i."""
MAX_SHARE = 4.0
ACTIVE_WITHIN_TURNS = 20
"""A node counts as active while it was heard within this many turns of the whole fleet."""


class Pace(msgspec.Struct, frozen=True):
    """Of one node: the arrival count when it was last heard, n_i, f_i, and T_i; None before its second arrival."""

    last_arrival: int
    num_examples: int
    arrivals_between: float | None = None
    loss: float | None = None


class RateCorrectedState(msgspec.Struct, frozen=True):
    """One waiting delta a node, and the paces."""

    arrivals: int = 0
    buffer: tuple[Waiting, ...] = ()
    paces: Mapping[str, Pace] = {}
    memory: Memory = Memory()


class RateCorrectedFedBuff(Buffered, frozen=True, kw_only=True, tag="rate-corrected-fedbuff", tag_field="method"):
    """K = `buffer_size` distinct nodes make a step; 0 takes a third of the active nodes, and at least two.

    Two, because a single update, made heavier for its node's slowness and rounded at random, is a step too far. A
    third and a rate below 1, because all nodes train at once: with steps of few nodes, what many of them began from
    the same version moves the model the same way again and again.
    """

    buffer_size: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.4
    max_rate: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 10.0
    clip_factor: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 3.0
    weigh_examples: bool = False
    q: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0

    def init(self) -> RateCorrectedState:
        """Nobody heard yet."""
        return RateCorrectedState()

    def fold(
        self, state: RateCorrectedState, contribution: Contribution, num_params: int
    ) -> tuple[RateCorrectedState, Step | None]:
        """Puts the delta into its node's place; steps when enough distinct nodes wait."""
        arrivals, paces = state.arrivals, state.paces
        if all(waiting.node != contribution.node for waiting in state.buffer):
            arrivals += 1
            before = paces.get(contribution.node)
            paces = {**paces, contribution.node: _heard(before, arrivals, contribution)}
        memory, clip = self.clip(state.memory, contribution.norm)
        factor = clip * self._rate(paces, contribution.node) * self._share(paces, contribution.node)
        factor *= self._need(paces, contribution.node)
        mine = Waiting(contribution.node, contribution.payload, factor)
        full = (*(waiting for waiting in state.buffer if waiting.node != contribution.node), mine)
        if len(full) < self._wanted(paces, arrivals):
            return RateCorrectedState(arrivals, full, paces, memory), None
        memory, step = self.end(memory, full, num_params)
        return RateCorrectedState(arrivals, (), paces, memory), step

    def _rate(self, paces: Mapping[str, Pace], node: str) -> float:
        """r_i = min(r_max, T_i mean_j(1 / T_j)); 1 for a node whose pace is not known yet."""
        mine = paces[node].arrivals_between
        known = [pace.arrivals_between for pace in paces.values() if pace.arrivals_between]
        if mine is None or not known:
            return 1.0
        return min(self.max_rate, mine * sum(1.0 / pace for pace in known) / len(known))

    def _share(self, paces: Mapping[str, Pace], node: str) -> float:
        """n_i / mean_j(n_j), or 1 when examples do not count."""
        if not self.weigh_examples:
            return 1.0
        mean = sum(pace.num_examples for pace in paces.values()) / len(paces)
        return min(MAX_SHARE, paces[node].num_examples / mean)

    def _need(self, paces: Mapping[str, Pace], node: str) -> float:
        """(f_i / mean_j(f_j))^q, or 1 when losses do not count or are not told."""
        told = [pace.loss for pace in paces.values() if pace.loss is not None]
        mine = paces[node].loss
        if not self.q or mine is None or sum(told) <= 0:
            return 1.0
        return min(MAX_SHARE, float((mine * len(told) / sum(told)) ** self.q))

    def _wanted(self, paces: Mapping[str, Pace], arrivals: int) -> int:
        """How many distinct nodes make a step."""
        horizon = arrivals - ACTIVE_WITHIN_TURNS * len(paces)
        active = sum(pace.last_arrival > horizon for pace in paces.values())
        return max(1, min(self.buffer_size or max(2, -(-active // 3)), active))


def _heard(pace: Pace | None, arrivals: int, contribution: Contribution) -> Pace:
    """The node's pace after an arrival at this count."""
    loss = contribution.loss if math.isfinite(contribution.loss) and contribution.loss >= 0 else None
    if pace is None:
        return Pace(arrivals, contribution.num_examples, loss=loss)
    gap = float(arrivals - pace.last_arrival)
    between = gap if pace.arrivals_between is None else PACE_MEMORY * pace.arrivals_between + (1 - PACE_MEMORY) * gap
    return Pace(arrivals, contribution.num_examples, between, loss)
