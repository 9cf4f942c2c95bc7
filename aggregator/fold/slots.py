"""One slot a node with its latest delta, and a bounded mean over all of them.

Every node has one voice however fast it sends, and a slow one is heard in every step until it speaks again. Two
bounds keep a delta that is used more than once from doing harm: as the model walks along it, it fades (progress
damping), and its length is measured by what was usual for the version that it started from (vintage clip), since late
deltas are longer by nature.

a_i = clip(1 - p_i / budget, 0, 1), with p_i the share of slot i that the model has walked since its base version r_i
= max(median norm of the slots when the base version was new, the same now) x <- x + eta (1/N) sum_i a_i min(1, clip
r_i / |u_i|) u_i, after every ceil(N turns) arrivals

Progress is measured along the slot's own direction: p_i = <x - x_base, u_i> / |u_i|^2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Annotated

import msgspec

from aggregator.deltas import recall
from aggregator.fold.buffered import Buffered, Memory, Waiting, total
from aggregator.fold.contribution import Contribution, Step

ACTIVE_WITHIN_TURNS = 20
"""A node is forgotten when it was not heard within this many turns of the whole fleet."""
VINTAGES_REMEMBERED = 1000


class Slot(msgspec.Struct, frozen=True):
    """A node's latest delta.

    Attributes:
        norm: its length.
        base: the step count of its base version.
        progress: p_i.
        heard: the arrival count when it came.
    """

    payload: bytes
    norm: float
    base: int
    progress: float
    heard: int


class SlotsState(msgspec.Struct, frozen=True):
    """All slots, how many arrivals and steps there were, and the median norm at each recent step."""

    slots: Mapping[str, Slot] = {}
    arrivals: int = 0
    since_step: int = 0
    steps: int = 0
    vintages: Mapping[int, float] = {}
    memory: Memory = Memory()


class Slots(Buffered, frozen=True, kw_only=True, tag="slots", tag_field="method"):
    """A share `turns` of the fleet speaks between two steps; the first comes when `start` nodes were heard."""

    turns: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.2
    start: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    budget: Annotated[float, msgspec.Meta(gt=0, le=100)] = 0.5
    clip_factor: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 10.0

    @property
    def needs_drift(self) -> bool:
        """Progress of a delta that comes late is what the model has walked since its base."""
        return True

    def init(self) -> SlotsState:
        """Nobody heard yet."""
        return SlotsState()

    def fold(self, state: SlotsState, contribution: Contribution, num_params: int) -> tuple[SlotsState, Step | None]:
        """Puts the delta into its node's slot; steps when enough have spoken."""
        arrivals = state.arrivals + 1
        delta = recall(contribution.payload, num_params)
        walked = 0.0
        if contribution.drift is not None and contribution.norm > 0:
            walked = delta.dot(contribution.drift) / contribution.norm**2
        mine = Slot(contribution.payload, contribution.norm, state.steps - contribution.staleness, walked, arrivals)
        slots = {**state.slots, contribution.node: mine}
        since_step = state.since_step + 1
        following = SlotsState(slots, arrivals, since_step, state.steps, state.vintages, state.memory)
        if len(slots) < self.start or since_step < math.ceil(self.turns * len(slots)):
            return following, None
        return self._step(following, num_params)

    def _step(self, state: SlotsState, num_params: int) -> tuple[SlotsState, Step]:
        horizon = state.arrivals - ACTIVE_WITHIN_TURNS * len(state.slots)
        slots = {node: slot for node, slot in state.slots.items() if slot.heard > horizon}
        usual = statistics.median(slot.norm for slot in slots.values())
        factors = {node: self._factor(slot, usual, state.vintages) for node, slot in slots.items()}
        waiting = tuple(Waiting(node, slot.payload, factors[node]) for node, slot in slots.items() if factors[node])
        vector = total(waiting, 1 / len(slots), num_params)
        memory, step = self.move(state.memory, vector, {each.node: each.factor / len(slots) for each in waiting})
        steps = state.steps + 1
        vintages = {**state.vintages, steps: usual}
        vintages.pop(steps - VINTAGES_REMEMBERED, None)
        walked = {node: _further(slot, step, num_params) for node, slot in slots.items()}
        return SlotsState(walked, state.arrivals, 0, steps, vintages, memory), step

    def _factor(self, slot: Slot, usual: float, vintages: Mapping[int, float]) -> float:
        fresh = min(1.0, max(0.0, 1 - slot.progress / self.budget))
        limit = self.clip_factor * max(usual, vintages.get(slot.base, 0.0))
        return fresh * (limit / slot.norm if self.clip_factor and slot.norm > limit else 1.0)


def _further(slot: Slot, step: Step, num_params: int) -> Slot:
    """The same delta when the model has walked on."""
    if not slot.norm:
        return slot
    walked = recall(slot.payload, num_params).dot(step.update) / slot.norm**2
    return msgspec.structs.replace(slot, progress=slot.progress + walked)
