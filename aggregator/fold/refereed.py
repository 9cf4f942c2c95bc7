"""A bold rule and a careful one over the same slots; which of them moves the model, the losses of the nodes decide.

The bold one is the bounded mean of slots.py: fast, and fair to who is alone with what it sees, but a third of liars
spoil it. The careful one is the mixed median, which bears them, but takes who is alone for a liar. Nothing in the
deltas tells the two apart; whether the losses of the fleet fall does. See trial.py for the turns they take.

When a trial of the bold rule is undone, the model goes back to where it was, the slots are those from before, and
what was trained from versions of the trial is passed over.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.rules.mixed_median import MixedMedian
from aggregator.fold.slots import Slots, SlotsState, put
from aggregator.fold.trial import Trial, hear, judged, without_those_gone
from fieldfold.params import Vector, from_bytes, to_bytes

MISTRUSTED = 0.4
"""Share of the slots that the careful rule leaves room for: more than may lie costs little, and less costs much."""
TURNS = 0.45
"""Between two steps more nodes speak than may lie, so that fast liars alone make no step."""


class RefereedState(msgspec.Struct, frozen=True):
    """The slots and the trial.

    Attributes:
        kept: the slots where the model may come back to; None before there is such a place.
        travelled: what the model has moved since.
        undone: step counts of the first and the last version that were undone last.
    """

    slots: SlotsState = SlotsState()
    trial: Trial = Trial()
    kept: SlotsState | None = None
    travelled: bytes = b""
    undone: tuple[int, int] = (1, 0)


class Refereed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refereed", tag_field="method"):
    """The settings of both rules: `turns` and `start` as in `slots`; budget, rate and clipping of the bold one."""

    turns: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    start: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    budget: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    server_learning_rate: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.4
    clip_factor: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 10.0

    @property
    def max_staleness(self) -> int | None:
        """Any."""
        return None

    @property
    def needs_drift(self) -> bool:
        """As `slots`."""
        return True

    def init(self) -> RefereedState:
        """Nobody heard yet."""
        return RefereedState()

    def fold(
        self, state: RefereedState, contribution: Contribution, num_params: int
    ) -> tuple[RefereedState, Step | None]:
        """Puts the delta into its node's slot; steps, or goes back, when enough have spoken."""
        base = state.slots.steps - contribution.staleness
        if state.undone[0] <= base <= state.undone[1]:
            return state, None
        slots = put(state.slots, contribution, num_params)
        trial = hear(state.trial, contribution.node, contribution.loss, base, len(slots.slots))
        state = msgspec.structs.replace(state, slots=slots, trial=trial)
        if not self._rule(trial).is_due(slots):
            return state, None
        trial, move = judged(trial, len(slots.slots), slots.steps)
        if move == "back":
            return _back(state, trial)
        if move == "anchor":
            state = msgspec.structs.replace(state, kept=slots, travelled=b"")
        return self._step(state, trial, num_params)

    def _rule(self, trial: Trial) -> Slots:
        if trial.bold:
            return Slots(
                turns=self.turns,
                start=self.start,
                budget=self.budget,
                server_learning_rate=self.server_learning_rate,
                clip_factor=self.clip_factor,
            )
        return careful(start=self.start)

    def _step(self, state: RefereedState, trial: Trial, num_params: int) -> tuple[RefereedState, Step]:
        slots, step = self._rule(trial).step(state.slots, num_params)
        trial = without_those_gone(trial, slots.slots)
        travelled = b"" if state.kept is None else to_bytes(_vector(state.travelled, num_params) + step.update)
        return RefereedState(slots, trial, state.kept, travelled, state.undone), step


def careful(turns: float = TURNS, start: int = 1) -> Slots:
    """The rule for a fleet of which a part lies."""
    rule = MixedMedian(fraction=MISTRUSTED)
    return Slots(turns=turns, start=start, server_learning_rate=0.7, clip_factor=1.0, rule=rule)


def _back(state: RefereedState, trial: Trial) -> tuple[RefereedState, Step | None]:
    """To where the model was; without a step since then there is nothing to undo."""
    if state.kept is None or not state.travelled:
        return msgspec.structs.replace(state, trial=trial), None
    steps = state.slots.steps + 1
    slots = msgspec.structs.replace(state.kept, steps=steps, arrivals=0, spoken=())
    undone = state.kept.steps + 1, state.slots.steps
    back = Step(-_vector(state.travelled, 0), {}, lossless=True)
    return RefereedState(slots, trial, state.kept, b"", undone), back


def _vector(stored: bytes, num_params: int) -> Vector:
    return from_bytes(stored) if stored else np.zeros(num_params, np.float32)
