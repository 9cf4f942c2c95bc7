"""One slot a node with its latest delta, and a bounded mean over all of them, or a robust rule.

Every node has one voice however fast it sends, and a slow one is heard in every step until it speaks again. Two
bounds keep a delta that is used more than once from doing harm: as the model walks along it, it fades (progress
damping), and its length is measured by what was usual for the version that it started from (vintage clip), since late
deltas are longer by nature, and those of a node that is alone with what it sees longer still.

a_i = clip(1 - p_i / budget, 0, 1), with p_i the share of slot i that the model has walked since its base version r_i
= max(median norm of the slots when the base version was new, the same now) x <- x + eta (1/N) sum_i a_i min(1, clip
r_i / |u_i|) u_i, as soon as ceil(N turns) nodes have spoken since the last step

Progress is measured along the slot's own direction, p_i = <x - x_base, u_i> / |t_i|^2, where t_i is what was trained
and u_i what came of it when it was rounded for sending: what is walked along the rounding of others is nothing on the
average, and what a slot moves along its own is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Annotated

import msgspec

from aggregator.deltas import look_up
from aggregator.fold.buffered import Buffered, Memory, Waiting, by_node, judge, side_by_side, total
from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.rules.named import Mean
from fieldfold.params import Vector

ACTIVE_WITHIN_TURNS = 300
"""A node is forgotten when it was silent while the fleet spoke so often; nobody hastens that by sending fast."""
IMPATIENT = 8
"""A step comes without as many speakers when those who are there have sent so many times as many updates."""
VINTAGES_REMEMBERED = 1000
MOST_ROWS = 256
"""So many slots at most lie side by side for a rule; of a larger fleet each step looks at others."""


class Slot(msgspec.Struct, frozen=True):
    """A node's latest delta.

    Attributes:
        norm, trained_norm: its length, and that before it was rounded.
        base: the step count of its base version.
        progress: p_i.
        heard: the step count when it came.
    """

    payload: bytes
    norm: float
    trained_norm: float
    base: int
    progress: float
    heard: int


class SlotsState(msgspec.Struct, frozen=True):
    """All slots, how many steps there were, and the median norm at each recent one.

    Attributes:
        arrivals: since the last step.
        spoken: who has sent them, in order.
    """

    slots: Mapping[str, Slot] = {}
    arrivals: int = 0
    spoken: tuple[str, ...] = ()
    steps: int = 0
    vintages: Mapping[int, float] = {}
    memory: Memory = Memory()


class Slots(Buffered, frozen=True, kw_only=True, tag="slots", tag_field="method"):
    """A share `turns` of the fleet speaks between two steps; the first comes when `start` nodes were heard."""

    turns: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    start: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    budget: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.4
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
        state = put(state, contribution, num_params)
        return self.step(state, num_params) if self.is_due(state) else (state, None)

    def is_due(self, state: SlotsState) -> bool:
        """Whether enough have been heard at all, and since the last step."""
        heard = len(state.slots)
        wanted = math.ceil(self.turns * heard)
        has_begun = heard >= self.start or state.steps > 0
        return has_begun and (len(state.spoken) >= wanted or state.arrivals >= IMPATIENT * wanted)

    def step(self, state: SlotsState, num_params: int) -> tuple[SlotsState, Step]:
        """Moves by what the slots say."""
        horizon = state.steps - ACTIVE_WITHIN_TURNS / self.turns
        slots = {node: slot for node, slot in state.slots.items() if slot.heard >= horizon}
        usual = statistics.median(slot.norm for slot in slots.values())
        waiting = tuple(
            Waiting(node, slot.payload, self._factor(slot, usual, state.vintages)) for node, slot in slots.items()
        )
        memory, vector, weights = self._combined(state, waiting, num_params)
        memory, step = self.move(memory, vector, weights)
        steps = state.steps + 1
        vintages = {**state.vintages, steps: usual}
        vintages.pop(steps - VINTAGES_REMEMBERED, None)
        return SlotsState(self.walk(slots, step, num_params), 0, (), steps, vintages, memory), step

    def _combined(
        self, state: SlotsState, waiting: tuple[Waiting, ...], num_params: int
    ) -> tuple[Memory, Vector, dict[str, float]]:
        if isinstance(self.rule, Mean):
            moving = tuple(each for each in waiting if each.factor)
            weights = [each.factor / len(waiting) for each in moving]
            return state.memory, total(moving, 1 / len(waiting), num_params, look_up), by_node(moving, weights)
        stride = -(-len(waiting) // MOST_ROWS)
        seen = waiting[state.steps % stride :: stride]
        memory, vector, shares = judge(self.rule, state.memory, side_by_side(seen, num_params, look_up))
        weights = [each.factor * share for each, share in zip(seen, shares, strict=True)]
        return memory, vector, by_node(seen, weights)

    def walk(self, slots: Mapping[str, Slot], step: Step, num_params: int) -> dict[str, Slot]:
        """The same slots when the model has walked on."""
        shares = {node: self.server_learning_rate * weight for node, weight in step.weights.items()}
        return {node: _further(slot, step, shares.get(node, 0.0), num_params) for node, slot in slots.items()}

    def _factor(self, slot: Slot, usual: float, vintages: Mapping[int, float]) -> float:
        fresh = min(1.0, max(0.0, 1 - slot.progress / self.budget))
        limit = self.clip_factor * max(usual, vintages.get(slot.base, 0.0))
        return fresh * (limit / slot.norm if self.clip_factor and slot.norm > limit else 1.0)


def put(state: SlotsState, contribution: Contribution, num_params: int) -> SlotsState:
    """The delta in its node's slot, in place of the one before."""
    trained_norm = min(contribution.trained_norm, contribution.norm)
    progress = 0.0
    if contribution.drift is not None and trained_norm > 0:
        progress = look_up(contribution.payload, num_params).dot(contribution.drift) / trained_norm**2
    base, node = state.steps - contribution.staleness, contribution.node
    mine = Slot(contribution.payload, contribution.norm, trained_norm, base, progress, state.steps)
    return msgspec.structs.replace(
        state,
        slots={**state.slots, node: mine},
        arrivals=state.arrivals + 1,
        spoken=state.spoken if node in state.spoken else (*state.spoken, node),
    )


def _further(slot: Slot, step: Step, share: float, num_params: int) -> Slot:
    """`share` is that of the slot in the step, times the rate."""
    if not slot.trained_norm:
        return slot
    along = look_up(slot.payload, num_params).dot(step.update)
    rounding = slot.norm**2 - slot.trained_norm**2
    progress = slot.progress + (along - share * rounding) / slot.trained_norm**2
    return msgspec.structs.replace(slot, progress=progress)
