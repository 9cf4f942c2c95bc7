"""What a trial that is undone leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from aggregator.fold.contribution import Contribution, Step
from aggregator.fold.refereed import Refereed, RefereedState
from aggregator.fold.trial import LENGTH
from tests.aggregator.tiny import FIRST, NUM_PARAMS, contribution

NODES = "abcdefghij"
METHOD = Refereed(turns=1.0)


def said(node: str, loss: float, staleness: int = 0) -> Contribution:
    delta = (0.1, 0.2, 0.3 + 0.01 * NODES.index(node))
    still = np.zeros(NUM_PARAMS, np.float32)
    return msgspec.structs.replace(contribution(node, *delta, staleness=staleness, drift=still), loss=loss)


def told(state: RefereedState, told_at_first: float) -> Iterator[tuple[RefereedState, Step]]:
    """All nodes speak for many turns; they are harmed by whatever the bold rule does."""
    for speaking in range(20 * LENGTH * len(NODES)):
        loss = told_at_first if speaking < len(NODES) else 0.9 if state.trial.bold else 0.4
        state, step = METHOD.fold(state, said(NODES[speaking % len(NODES)], loss), NUM_PARAMS)
        if step is not None:
            yield state, step


def test_the_model_goes_back_to_where_it_was_last_known_to_be_good() -> None:
    models = [FIRST]
    steps = told(METHOD.init(), told_at_first=1.0)
    state, step = next(steps)
    while not step.lossless:
        models.append(models[-1] + step.update)
        state, step = next(steps)
    models.append(models[-1] + step.update)
    assert state.kept is not None
    assert not state.trial.bold
    np.testing.assert_allclose(models[-1], models[state.kept.steps], rtol=1e-6, atol=1e-7)
    assert not np.allclose(models[-1], models[-2])


def test_what_was_trained_from_an_undone_version_is_passed_over() -> None:
    undone = msgspec.structs.replace(METHOD.init(), undone=(3, 5))
    at_six = msgspec.structs.replace(undone, slots=msgspec.structs.replace(undone.slots, steps=6))
    for base, is_taken in ((2, True), (3, False), (5, False), (6, True)):
        state, _ = METHOD.fold(at_six, said("a", 1.0, staleness=6 - base), NUM_PARAMS)
        assert (state != at_six) is is_taken


def test_what_was_said_by_nodes_that_have_been_forgotten_decides_nothing() -> None:
    state = METHOD.init()
    for node in NODES:
        state, _ = METHOD.fold(state, said(node, 5.0), NUM_PARAMS)
    state = msgspec.structs.replace(state, slots=msgspec.structs.replace(state.slots, steps=100_000))
    step = None
    while step is None:
        for node in "ab":
            state, step = METHOD.fold(state, said(node, 1.0), NUM_PARAMS)
    assert state.slots.slots.keys() == state.trial.reports.keys() == set("ab")
