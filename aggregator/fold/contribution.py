"""What a method is given and what it gives back; the language that all methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from fieldfold.params import Vector


class Contribution(msgspec.Struct, frozen=True):
    """One accepted client update as a method sees it.

    Attributes:
        node: who sent it.
        payload: its encoded delta against the version that was pulled; kept encoded until a step needs it.
        staleness: tau, the versions released since that one.
        num_examples: the node's training examples.
        norm: Euclidean norm of the decoded delta.
        loss: mean loss of the base version on the node's validation data, as the node says; NaN where it says none.
        drift: x - x_base, what the model moved since the pulled version; only for methods with `needs_drift`.
        trained_norm: that of the delta before it was quantised, as the node says, but at most `norm`; infinite where
            nobody says it.
    """

    node: str
    payload: bytes
    staleness: int
    num_examples: int
    norm: float
    drift: Vector | None = None
    trained_norm: float = math.inf
    loss: float = math.nan


class Step(msgspec.Struct, frozen=True):
    """A move of the global model: x <- x + update, which the model then keeps for itself.

    Attributes:
        update: a vector of the step's own: nobody else holds it.
        weights: with what weight each node's delta went in.
        lossless: whether the release must leave nothing of it out, as where the model goes back a long way.
    """

    update: Vector
    weights: Mapping[str, float]
    lossless: bool = False


class Method(Protocol):
    """A rule of aggregation. Settings are its fields; `fold` is pure and deterministic.

    Attributes:
        max_staleness: contributions staler than this are refused; None where any will do.
        needs_drift: whether contributions must carry `drift`.
    """

    @property
    def max_staleness(self) -> int | None:
        """See above."""

    @property
    def needs_drift(self) -> bool:
        """See above."""

    def init(self) -> Any:
        """The state before the first contribution: plain values, so that it can be stored."""

    def fold(self, state: Any, contribution: Contribution, num_params: int) -> tuple[Any, Step | None]:
        """Takes one contribution; returns the next state, and a step when one is due."""
