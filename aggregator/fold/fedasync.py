"""Asynchronous federated optimization: every update moves the model at once.

Xie, Koyejo and Gupta, "Asynchronous Federated Optimization", OPT 2020:
x <- (1 - alpha_tau) x + alpha_tau y, with y = x_base + delta and alpha_tau = alpha s(tau).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from aggregator.deltas import recall
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.staleness import Kind, constant, hinge, polynomial


class FedAsyncState(msgspec.Struct, frozen=True):
    """The method remembers nothing."""


class FedAsync(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fedasync", tag_field="method"):
    """alpha is the mixing weight of a fresh update; `staleness` names s, with its parameters a and b."""

    alpha: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    staleness: Kind = "polynomial"
    a: Annotated[float, msgspec.Meta(gt=0, le=100)] = 0.5
    b: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 4.0

    @property
    def max_staleness(self) -> int | None:
        """Any: s(tau) makes old ones light."""
        return None

    @property
    def needs_drift(self) -> bool:
        """It mixes with y: y - x = delta - (x - x_base)."""
        return True

    def mixing_weight(self, tau: int) -> float:
        """alpha_tau = alpha s(tau)."""
        if self.staleness == "hinge":
            return self.alpha * hinge(tau, self.a, self.b)
        if self.staleness == "polynomial":
            return self.alpha * polynomial(tau, self.a)
        return self.alpha * constant(tau)

    def init(self) -> FedAsyncState:
        """Nothing to remember."""
        return FedAsyncState()

    def fold(
        self, state: FedAsyncState, contribution: Contribution, num_params: int
    ) -> tuple[FedAsyncState, Step | None]:
        """Steps at every contribution."""
        weight = self.mixing_weight(contribution.staleness)
        toward = recall(contribution.payload, num_params).dense()
        if contribution.drift is not None:
            toward = toward - contribution.drift
        return state, Step(np.float32(weight) * toward, {contribution.node: weight})
