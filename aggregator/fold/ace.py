"""All-client engagement: every step is the mean of what every node said last.

Chang et al., "Mitigating Participation Imbalance Bias in Asynchronous Federated Learning", 2025 (All-Client
Engagement): x <- x + eta (1/N) sum over all nodes of their latest delta, however old, at every arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from aggregator.fold.buffered import Buffered, Memory, Waiting, judge, side_by_side, total
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.rules.named import Mean
from aggregator.fold.server_optimizers import recalled
from fieldfold.params import Vector, to_bytes


class ACEState(msgspec.Struct, frozen=True):
    """One slot a node, with its latest delta; the sum of all slots, where the mean needs it."""

    slots: Mapping[str, Waiting] = {}
    arrivals: int = 0
    sum_of_slots: bytes = b""
    memory: Memory = Memory()


class ACE(Buffered, frozen=True, kw_only=True, tag="ace", tag_field="method"):
    """Steps every `buffer_size` arrivals (the paper: each), once `start` nodes have been heard.

    A fast node has one slot like everybody else. With a rule, it is over slots and not over arrivals: 4 N num_params
    bytes of memory a step.
    """

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    start: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1

    def init(self) -> ACEState:
        """No slots."""
        return ACEState()

    def fold(self, state: ACEState, contribution: Contribution, num_params: int) -> tuple[ACEState, Step | None]:
        """Puts the delta into its node's slot; steps when it is time."""
        memory, clip = self.clip(state.memory, contribution.norm)
        mine = Waiting(contribution.node, contribution.payload, clip)
        slots = {**state.slots, contribution.node: mine}
        due = state.arrivals + 1 >= self.buffer_size and len(slots) >= self.start
        arrivals = 0 if due else state.arrivals + 1
        if not isinstance(self.rule, Mean):
            following = ACEState(slots, arrivals, b"", memory)
            if not due:
                return following, None
            memory, vector, shares = judge(self.rule, memory, side_by_side(tuple(slots.values()), num_params))
            memory, step = self.move(memory, vector, _weights(slots, shares))
            return msgspec.structs.replace(following, memory=memory), step
        in_all = self._sum(state, mine, num_params)
        if not due:
            return ACEState(slots, arrivals, to_bytes(in_all), memory), None
        shares = [1 / len(slots)] * len(slots)
        memory, step = self.move(memory, in_all / np.float32(len(slots)), _weights(slots, shares))
        return ACEState(slots, arrivals, to_bytes(in_all), memory), step

    @staticmethod
    def _sum(state: ACEState, mine: Waiting, num_params: int) -> Vector:
        """Over all slots, with mine in place of the one before."""
        before = state.slots.get(mine.node)
        change = (mine,) if before is None else (mine, msgspec.structs.replace(before, factor=-before.factor))
        return recalled(state.sum_of_slots, np.empty(num_params, np.float32)) + total(change, 1.0, num_params)


def _weights(slots: Mapping[str, Waiting], shares: list[float]) -> dict[str, float]:
    return {node: slot.factor * share for (node, slot), share in zip(slots.items(), shares, strict=True) if share}
