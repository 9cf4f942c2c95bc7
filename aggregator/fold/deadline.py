"""Rounds that end by a deadline, whoever has answered by then.

Late answers are dropped, as in Nishio and Yonetani, "Client Selection for Federated Learning with Heterogeneous
Resources in Mobile Edge", ICC 2019, or they count in the round in which they arrive, lighter for their staleness, as
in Wu et al., "SAFA: A Semi-Asynchronous Protocol for Fast Federated Learning with Low Overhead", IEEE TC 2021.

A fold knows no clock, so that it can be replayed; the deadline is measured by the fleet's own pace: a round is over
when its nodes have answered 1 + `laps` times in the mean.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from aggregator.fold.buffered import Buffered, Memory, Waiting
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.staleness import polynomial


class DeadlineState(msgspec.Struct, frozen=True):
    """The latest answer of each node in the running round, and how many answers there were."""

    round: tuple[Waiting, ...] = ()
    arrivals: int = 0
    memory: Memory = Memory()


class Deadline(Buffered, frozen=True, kw_only=True, tag="deadline", tag_field="method"):
    """`late` answers are `dropped` (synchronous) or `kept` (semi-asynchronous)."""

    laps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.5
    late: Literal["dropped", "kept"] = "kept"
    staleness_exponent: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.5

    @property
    def max_staleness(self) -> int | None:
        """None where late answers are kept, else 0."""
        return 0 if self.late == "dropped" else None

    def init(self) -> DeadlineState:
        """An empty round."""
        return DeadlineState()

    def fold(
        self, state: DeadlineState, contribution: Contribution, num_params: int
    ) -> tuple[DeadlineState, Step | None]:
        """Adds to the round; steps when it is over."""
        if self.late == "dropped" and contribution.staleness > 0:
            return state, None
        memory, clip = self.clip(state.memory, contribution.norm)
        factor = clip * polynomial(contribution.staleness, self.staleness_exponent)
        mine = Waiting(contribution.node, contribution.payload, factor)
        answers = (*(waiting for waiting in state.round if waiting.node != contribution.node), mine)
        arrivals = state.arrivals + 1
        if arrivals < (1 + self.laps) * len(answers):
            return DeadlineState(answers, arrivals, memory), None
        memory, step = self.end(memory, answers, num_params)
        return DeadlineState((), 0, memory), step
