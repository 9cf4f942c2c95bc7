"""How a buffer becomes a step, in all methods that have one: clipped, combined, and moved by the optimizer."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Annotated, TypeAlias

import msgspec
import numpy as np

from aggregator.deltas import MOST_VECTORS, recall
from aggregator.fold.contribution import Step
from aggregator.fold.rules.named import AnyRule, Mean, RobustRule
from aggregator.fold.rules.rows import Rows
from aggregator.fold.server_optimizers import AnyOptimizer, Moments, Sgd, recalled
from fieldfold.codec import Delta, add_all
from fieldfold.params import Vector, to_bytes

NORMS_REMEMBERED = 64
Decoder: TypeAlias = Callable[[bytes, int], Delta]
"""Of a payload with so many parameters; `recall` where this is its last use, `look_up` where it is not."""


class Waiting(msgspec.Struct, frozen=True):
    """A contribution in a buffer, with the factor its delta is to be multiplied with."""

    node: str
    payload: bytes
    factor: float


class Memory(msgspec.Struct, frozen=True):
    """What the end of a step remembers: recent norms for clipping, the last vector for the rule, the moments."""

    norms: tuple[float, ...] = ()
    center: bytes = b""
    moments: Moments = Moments()


class Buffered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a step's end; each method with a buffer has them besides its own.

    A delta longer than `clip_factor` times the median of the recent norms is scaled down to that length; 0 is off.
    """

    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    clip_factor: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    rule: AnyRule = Mean()
    optimizer: AnyOptimizer = Sgd()

    @property
    def max_staleness(self) -> int | None:
        """Any."""
        return None

    @property
    def needs_drift(self) -> bool:
        """Deltas are taken as they are."""
        return False

    def clip(self, memory: Memory, length: float) -> tuple[Memory, float]:
        """The factor that shortens a delta of this length; from now on it counts among the recent ones."""
        if not self.clip_factor:
            return memory, 1.0
        limit = self.clip_factor * statistics.median(memory.norms) if memory.norms else 0.0
        norms = (*memory.norms, length)[-NORMS_REMEMBERED:]
        return msgspec.structs.replace(memory, norms=norms), limit / length if 0.0 < limit < length else 1.0

    def end(
        self, memory: Memory, buffer: tuple[Waiting, ...], num_params: int, rate: float | None = None
    ) -> tuple[Memory, Step]:
        """The move by (1/K) sum of factor x delta over a buffer of K, or what rule and optimizer make of it."""
        if isinstance(self.rule, Mean):
            vector, shares = total(buffer, 1 / len(buffer), num_params), [1 / len(buffer)] * len(buffer)
        else:
            memory, vector, shares = judge(self.rule, memory, side_by_side(buffer, num_params))
        weights = [waiting.factor * share for waiting, share in zip(buffer, shares, strict=True)]
        return self.move(memory, vector, by_node(buffer, weights), rate)

    def move(
        self, memory: Memory, vector: Vector, weights: dict[str, float], rate: float | None = None
    ) -> tuple[Memory, Step]:
        """The step along `vector`, at the method's own rate or at another."""
        rate = self.server_learning_rate if rate is None else rate
        moments, update = self.optimizer.step(memory.moments, vector, rate)
        return msgspec.structs.replace(memory, moments=moments), Step(update, weights)


def judge(rule: RobustRule, memory: Memory, rows: Rows) -> tuple[Memory, Vector, list[float]]:
    """What a rule makes of deltas side by side, (K, num_params): a vector, and the share of each in it."""
    vector, shares = rule.combine(rows, recalled(memory.center, rows[0]))
    return msgspec.structs.replace(memory, center=to_bytes(vector)), vector, shares.tolist()


def total(buffer: tuple[Waiting, ...], scale: float, num_params: int, decoded: Decoder = recall) -> Vector:
    """The sum of scale x factor x delta, in the buffer's order (so that a replay gives the same bits)."""
    vector = np.zeros(num_params, np.float32)
    terms: list[tuple[np.float32, Delta]] = []
    for waiting in buffer:
        terms.append((np.float32(waiting.factor * scale), decoded(waiting.payload, num_params)))
        if sum(delta.size_bytes for _, delta in terms) >= MOST_VECTORS * vector.nbytes:
            add_all(vector, terms)
            terms = []
    add_all(vector, terms)
    return vector


def side_by_side(buffer: tuple[Waiting, ...], num_params: int, decoded: Decoder = recall) -> Rows:
    """Each factor x delta, a row each, (K, num_params): 4 K num_params bytes of memory."""
    rows = np.zeros((len(buffer), num_params), np.float32)
    for row, waiting in zip(rows, buffer, strict=True):
        add_all(row, [(np.float32(waiting.factor), decoded(waiting.payload, num_params))])
    return rows


def by_node(buffer: tuple[Waiting, ...], weights: list[float]) -> dict[str, float]:
    """A node's weights added up; nodes that had no part are left out."""
    found: dict[str, float] = {}
    for waiting, weight in zip(buffer, weights, strict=True):
        if weight:
            found[waiting.node] = found.get(waiting.node, 0.0) + weight
    return found
