"""Asynchronous SGD that ignores what comes too late.

Maranjyan, Tyurin and Richtarik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity", ICML
2025: x <- x + eta delta at every arrival whose staleness is below the threshold R. Optimal where all nodes hold data
of one distribution; where the slow ones hold something of their own, it is never learned.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from aggregator.deltas import recall
from aggregator.fold.contribution import Contribution, Step


class RingmasterState(msgspec.Struct, frozen=True):
    """The method remembers nothing."""


class Ringmaster(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ringmaster", tag_field="method"):
    """`delay_threshold` is R, in versions, which are arrivals here."""

    delay_threshold: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0

    @property
    def max_staleness(self) -> int | None:
        """R - 1: whoever is later is told so, and begins anew from the present version."""
        return self.delay_threshold - 1

    @property
    def needs_drift(self) -> bool:
        """Deltas are taken as they are."""
        return False

    def init(self) -> RingmasterState:
        """Nothing to remember."""
        return RingmasterState()

    def fold(
        self, state: RingmasterState, contribution: Contribution, num_params: int
    ) -> tuple[RingmasterState, Step | None]:
        """Steps at every contribution that is not too late."""
        if contribution.staleness >= self.delay_threshold:
            return state, None
        update = np.float32(self.server_learning_rate) * recall(contribution.payload, num_params).dense()
        return state, Step(update, {contribution.node: 1.0})
