"""Cache-aided asynchronous federated learning: the mean over all nodes, of which a buffer is the news.

Wang, Cao, Wu, Chen and Chen, "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
Calibration", ICLR 2024: v = h + (1/K) sum over K arrivals of (delta_i - h_i), x <- x + eta v, with h_i the latest
delta that node i sent before and h their mean over all nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from aggregator.fold.buffered import Buffered, Memory, Waiting, by_node, judge, total
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.rules.named import Mean
from aggregator.fold.server_optimizers import recalled
from fieldfold.params import to_bytes


class CA2FLState(msgspec.Struct, frozen=True):
    """The arrivals since the last step, h_i of each node that was heard before, and the sum of all h_i."""

    buffer: tuple[Waiting, ...] = ()
    latest: Mapping[str, Waiting] = {}
    sum_of_latest: bytes = b""
    memory: Memory = Memory()


class CA2FL(Buffered, frozen=True, kw_only=True, tag="ca2fl", tag_field="method"):
    """K = `buffer_size` arrivals make a step.

    Every node's latest delta is kept as it was sent. N is the number of nodes heard so far; the paper's is fixed. A
    rule judges delta_i - h_i + h, the arrivals as they are calibrated.
    """

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10

    def init(self) -> CA2FLState:
        """Nobody heard yet."""
        return CA2FLState()

    def fold(self, state: CA2FLState, contribution: Contribution, num_params: int) -> tuple[CA2FLState, Step | None]:
        """Adds to the buffer; steps when it is full."""
        memory, clip = self.clip(state.memory, contribution.norm)
        full = (*state.buffer, Waiting(contribution.node, contribution.payload, clip))
        if len(full) < self.buffer_size:
            return msgspec.structs.replace(state, buffer=full, memory=memory), None
        latest, news = dict(state.latest), []
        for waiting in full:
            news.append(_minus(waiting, latest.get(waiting.node)))
            latest[waiting.node] = waiting
        before = recalled(state.sum_of_latest, np.empty(num_params, np.float32))
        mean = before / np.float32(max(1, len(state.latest)))
        if isinstance(self.rule, Mean):
            together = total(tuple(each for pair in news for each in pair), 1.0, num_params)
            vector, shares = mean + together / np.float32(len(full)), [1 / len(full)] * len(full)
        else:
            rows = np.stack([total(pair, 1.0, num_params) for pair in news])
            together = rows.sum(axis=0)
            memory, vector, shares = judge(self.rule, memory, rows + mean)
        weights = by_node(full, shares)
        for node in state.latest:
            weights[node] = weights.get(node, 0.0) + 1 / len(state.latest)
        memory, step = self.move(memory, vector, weights)
        return CA2FLState((), latest, to_bytes(before + together), memory), step


def _minus(now: Waiting, before: Waiting | None) -> tuple[Waiting, ...]:
    """delta_i - h_i, as two deltas to add."""
    if before is None:
        return (now,)
    return now, msgspec.structs.replace(before, factor=-before.factor)
