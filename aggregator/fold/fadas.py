"""FedBuff with an adaptive server, whose rate falls when a buffer holds late deltas.

Wang, Wang, Lu and Chen, "FADAS: Towards Federated Adaptive Asynchronous Optimization", ICML 2024: the mean g of K
arrivals goes through AMSGrad, at the rate eta while the largest staleness of the buffer is at most tau_c, and at
min(eta, 1 / that staleness) beyond it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.fold.buffered import Buffered, Memory, Waiting
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.server_optimizers import Amsgrad, AnyOptimizer


class FADASState(msgspec.Struct, frozen=True):
    """The arrivals since the last step, and the largest staleness among them."""

    buffer: tuple[Waiting, ...] = ()
    largest_staleness: int = 0
    memory: Memory = Memory()


class FADAS(Buffered, frozen=True, kw_only=True, tag="fadas", tag_field="method"):
    """K = `buffer_size` arrivals make a step; `tau_c` is the staleness that costs nothing."""

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.01
    tau_c: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    optimizer: AnyOptimizer = Amsgrad()

    def init(self) -> FADASState:
        """An empty buffer."""
        return FADASState()

    def fold(self, state: FADASState, contribution: Contribution, num_params: int) -> tuple[FADASState, Step | None]:
        """Adds to the buffer; steps when it is full."""
        memory, clip = self.clip(state.memory, contribution.norm)
        full = (*state.buffer, Waiting(contribution.node, contribution.payload, clip))
        latest = max(state.largest_staleness, contribution.staleness)
        if len(full) < self.buffer_size:
            return FADASState(full, latest, memory), None
        memory, step = self.end(memory, full, num_params, self.rate(latest))
        return FADASState((), 0, memory), step

    def rate(self, largest_staleness: int) -> float:
        """eta_t."""
        if largest_staleness <= self.tau_c:
            return self.server_learning_rate
        return min(self.server_learning_rate, 1 / largest_staleness)
