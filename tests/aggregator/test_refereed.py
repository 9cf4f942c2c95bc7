"""What a trial that is undone leaves behind: nothing."""

from __future__ import annotations

import msgspec
import numpy as np

from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.refereed import Refereed, RefereedState
from fieldfold.params import Vector
from tests.aggregator.tiny import FIRST, NUM_PARAMS, contribution

NODES = "abcdefghij"
METHOD = Refereed(turns=1.0)


def said(node: str, loss: float, staleness: int = 0) -> Contribution:
    delta = (0.1, 0.2, 0.3 + 0.01 * NODES.index(node))
    still = np.zeros(NUM_PARAMS, np.float32)
    return msgspec.structs.replace(contribution(node, *delta, staleness=staleness, drift=still), loss=loss)


def turn(state: RefereedState, loss: float) -> tuple[RefereedState, list[Step]]:
    steps = []
    for node in NODES:
        state, step = METHOD.fold(state, said(node, loss), NUM_PARAMS)
        steps += [step] if step else []
    return state, steps


def moved(model: Vector, steps: list[Step]) -> Vector:
    for step in steps:
        model = model + step.update
    return model


def test_the_model_goes_back_to_where_it_was_before_the_trial() -> None:
    state, model = METHOD.init(), FIRST
    before, slots = model, state.slots
    for _ in range(30):
        if not state.trial.challenging:
            before, slots = model, state.slots
        state, steps = turn(state, loss=5.0 if state.trial.challenging else 1.0)
        model = moved(model, steps)
        if state.undone != (1, 0):
            break
    np.testing.assert_allclose(model, before, rtol=1e-6, atol=1e-7)
    assert state.slots.slots.keys() == slots.slots.keys()
    assert (state.kept, state.travelled, state.trial.challenging) == (None, b"", False)


def test_what_was_trained_from_an_undone_version_is_passed_over() -> None:
    undone = msgspec.structs.replace(METHOD.init(), undone=(3, 5))
    at_six = msgspec.structs.replace(undone, slots=msgspec.structs.replace(undone.slots, steps=6))
    for base, is_taken in ((2, True), (3, False), (5, False), (6, True)):
        state, _ = METHOD.fold(at_six, said("a", 1.0, staleness=6 - base), NUM_PARAMS)
        assert (state != at_six) is is_taken
