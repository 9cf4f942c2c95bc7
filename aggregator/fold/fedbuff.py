"""Buffered asynchronous aggregation.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022:
x <- x + eta * (1/K) sum over K arrivals of (1 + tau)^-1/2 delta.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.fold.buffered import Buffered, Memory, Waiting
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.staleness import polynomial


class FedBuffState(msgspec.Struct, frozen=True):
    """The arrivals since the last step; a factor is s(tau)."""

    buffer: tuple[Waiting, ...] = ()
    memory: Memory = Memory()


class FedBuff(Buffered, frozen=True, kw_only=True, tag="fedbuff", tag_field="method"):
    """K = `buffer_size` arrivals, whoever sent them, make a step."""

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    staleness_exponent: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.5

    def init(self) -> FedBuffState:
        """An empty buffer."""
        return FedBuffState()

    def fold(
        self, state: FedBuffState, contribution: Contribution, num_params: int
    ) -> tuple[FedBuffState, Step | None]:
        """Adds to the buffer; steps when it is full."""
        memory, clip = self.clip(state.memory, contribution.norm)
        factor = clip * polynomial(contribution.staleness, self.staleness_exponent)
        full = (*state.buffer, Waiting(contribution.node, contribution.payload, factor))
        if len(full) < self.buffer_size:
            return FedBuffState(full, memory), None
        memory, step = self.end(memory, full, num_params)
        return FedBuffState((), memory), step
