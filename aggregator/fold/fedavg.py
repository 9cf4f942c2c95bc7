"""Synchronous federated averaging.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017:
x <- x + eta * sum_i (n_i / n) delta_i over the clients of a round.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.fold.contribution import Contribution, Step, Waiting, combine


class FedAvgState(msgspec.Struct, frozen=True):
    """The deltas of the running round; a factor is the node's number of examples."""

    round: tuple[Waiting, ...] = ()


class FedAvg(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fedavg", tag_field="method"):
    """A round ends when `clients_per_round` distinct nodes have answered; only the newest version counts.

    A node that answers twice in a round has its later delta counted; one whose round ended before its delta's turn
    came is too late, as in over-selection.
    """

    clients_per_round: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0

    @property
    def max_staleness(self) -> int | None:
        """Only deltas against the newest version belong to the round."""
        return 0

    @property
    def needs_drift(self) -> bool:
        """A round's deltas share their base."""
        return False

    def init(self) -> FedAvgState:
        """An empty round."""
        return FedAvgState()

    def fold(
        self, state: FedAvgState, contribution: Contribution, num_params: int
    ) -> tuple[FedAvgState, Step | None]:
        """Adds to the round; steps when it is complete."""
        if contribution.staleness > 0:
            return state, None
        mine = Waiting(contribution.node, contribution.payload, float(contribution.num_examples))
        others = tuple(waiting for waiting in state.round if waiting.node != contribution.node)
        full = (*others, mine)
        if len(full) < self.clients_per_round:
            return FedAvgState(full), None
        examples = sum(waiting.factor for waiting in full)
        weights = {waiting.node: waiting.factor / examples for waiting in full}
        scaled = tuple(
            Waiting(waiting.node, waiting.payload, self.server_learning_rate * weights[waiting.node])
            for waiting in full
        )
        return FedAvgState(), Step(combine(scaled, num_params), weights)
