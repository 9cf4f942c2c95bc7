"""Synchronous federated averaging.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017:
x <- x + eta * sum_i (n_i / n) delta_i over the clients of a round.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.fold.buffered import Buffered, Memory, Waiting
from aggregator.fold.contribution import Contribution, Step


class Answer(msgspec.Struct, frozen=True):
    """A node's delta in the running round, and the factor that clips it."""

    node: str
    payload: bytes
    num_examples: int
    clip: float


class FedAvgState(msgspec.Struct, frozen=True):
    """The running round."""

    round: tuple[Answer, ...] = ()
    memory: Memory = Memory()


class FedAvg(Buffered, frozen=True, kw_only=True, tag="fedavg", tag_field="method"):
    """A round ends when `clients_per_round` distinct nodes have answered; only the newest version counts.

    A node that answers twice in a round has its later delta counted; one whose round ended before its delta's turn
    came is too late, as in over-selection.
    """

    clients_per_round: Annotated[int, msgspec.Meta(ge=1, le=100_000)]

    @property
    def max_staleness(self) -> int | None:
        """Only deltas against the newest version belong to the round."""
        return 0

    def init(self) -> FedAvgState:
        """An empty round."""
        return FedAvgState()

    def fold(
        self, state: FedAvgState, contribution: Contribution, num_params: int
    ) -> tuple[FedAvgState, Step | None]:
        """Adds to the round; steps when it is complete."""
        if contribution.staleness > 0:
            return state, None
        memory, clip = self.clip(state.memory, contribution.norm)
        mine = Answer(contribution.node, contribution.payload, contribution.num_examples, clip)
        full = (*(answer for answer in state.round if answer.node != contribution.node), mine)
        if len(full) < self.clients_per_round:
            return FedAvgState(full, memory), None
        examples = sum(answer.num_examples for answer in full)
        weighed = tuple(
            Waiting(answer.node, answer.payload, answer.clip * len(full) * answer.num_examples / examples)
            for answer in full
        )
        memory, step = self.end(memory, weighed, num_params)
        return FedAvgState((), memory), step
