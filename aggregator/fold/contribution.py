"""What a method is given and what it gives back; the language that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np

from aggregator.deltas import MOST_VECTORS, recall
from fieldfold.codec import Delta, add_all
from fieldfold.params import Vector


class Contribution(msgspec.Struct, frozen=True):
    """One accepted client update as a method sees it.

    Attributes:
        node: who sent it.
        payload: its encoded delta against the version that was pulled; kept encoded until a step needs it.
        staleness: tau, the versions released since that one.
        num_examples: the node's training examples.
        norm: Euclidean norm of the decoded delta.
        drift: x - x_base, what the model moved since the pulled version; only for methods with `needs_drift`.
    """

    node: str
    payload: bytes
    staleness: int
    num_examples: int
    norm: float
    drift: Vector | None = None


class Step(msgspec.Struct, frozen=True):
    """A move of the global model: x <- x + update. `weights` says with what weight each node's delta went in."""

    update: Vector
    weights: Mapping[str, float]


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


class Waiting(msgspec.Struct, frozen=True):
    """A contribution in a buffer, with the factor its delta is to be multiplied with."""

    node: str
    payload: bytes
    factor: float


def combine(buffer: tuple[Waiting, ...], num_params: int) -> Vector:
    """The sum of factor x delta over a buffer, in the buffer's order (so that a replay gives the same bits)."""
    total = np.zeros(num_params, np.float32)
    terms: list[tuple[np.float32, Delta]] = []
    for waiting in buffer:
        terms.append((np.float32(waiting.factor), recall(waiting.payload, num_params)))
        if sum(delta.size_bytes for _, delta in terms) >= MOST_VECTORS * total.nbytes:
            add_all(total, terms)
            terms = []
    add_all(total, terms)
    return total


def mean_step(buffer: tuple[Waiting, ...], server_learning_rate: float, num_params: int) -> Step:
    """The move eta * (1/K) sum of factor x delta over a buffer of K; a node's weights in it add up."""
    scale = server_learning_rate / len(buffer)
    scaled = tuple(Waiting(waiting.node, waiting.payload, waiting.factor * scale) for waiting in buffer)
    weights: dict[str, float] = {}
    for waiting in buffer:
        weights[waiting.node] = weights.get(waiting.node, 0.0) + waiting.factor / len(buffer)
    return Step(combine(scaled, num_params), weights)
