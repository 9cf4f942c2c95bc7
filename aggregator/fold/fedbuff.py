"""Buffered asynchronous aggregation.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022:
x <- x + eta * (1/K) sum over K arrivals of (1 + tau)^-1/2 delta.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.fold.contribution import Contribution, Step, Waiting, mean_step
from aggregator.fold.staleness import polynomial


class FedBuffState(msgspec.Struct, frozen=True):
    """The arrivals since the last step; a factor is s(tau)."""

    buffer: tuple[Waiting, ...] = ()


class FedBuff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fedbuff", tag_field="method"):
    """K = `buffer_size` arrivals, whoever sent them, make a step."""

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    staleness_exponent: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.5

    @property
    def max_staleness(self) -> int | None:
        """Any: old ones are light."""
        return None

    @property
    def needs_drift(self) -> bool:
        """Deltas are taken as they are."""
        return False

    def init(self) -> FedBuffState:
        """An empty buffer."""
        return FedBuffState()

    def fold(
        self, state: FedBuffState, contribution: Contribution, num_params: int
    ) -> tuple[FedBuffState, Step | None]:
        """Adds to the buffer; steps when it is full."""
        factor = polynomial(contribution.staleness, self.staleness_exponent)
        full = (*state.buffer, Waiting(contribution.node, contribution.payload, factor))
        if len(full) < self.buffer_size:
            return FedBuffState(full), None
        return FedBuffState(), mean_step(full, self.server_learning_rate, num_params)
