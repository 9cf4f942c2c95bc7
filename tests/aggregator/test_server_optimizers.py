"""The server's optimizers against two steps worked out on paper, and in a method."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.server_optimizers import Adagrad, Adam, Amsgrad, Moments, Momentum, ServerOptimizer, Sgd, Yogi
from fieldfold.params import as_vector
from tests.aggregator.tiny import NUM_PARAMS, contribution

TAU = 0.1
FIRST, SECOND = 2.0, -1.0
"""The gradients of two steps."""


@pytest.mark.parametrize(
    ("optimizer", "moves"),
    [
        (Sgd(), (2.0, -1.0)),
        (Momentum(beta=0.5), (2.0, 0.5 * 2 - 1)),
        (Adagrad(tau=TAU), (2 / (math.sqrt(0.01 + 4) + TAU), -1 / (math.sqrt(0.01 + 5) + TAU))),
        (
            Adam(beta1=0.5, beta2=0.75, tau=TAU),
            # v = .75 x .01 + .25 x 4 = 1.0075, then .75 x 1.0075 + .25; m = 1, then .5 - .5
            (1 / (math.sqrt(1.0075) + TAU), 0.0),
        ),
        (
            Yogi(beta1=0.0, beta2=0.75, tau=TAU),
            # v = .01 + .25 x 4, then, being larger than 1, less by .25
            (2 / (math.sqrt(1.01) + TAU), -1 / (math.sqrt(0.76) + TAU)),
        ),
        (
            Amsgrad(beta1=0.0, beta2=0.75, tau=TAU),
            # v = .25 x 4 = 1, then .75 + .25 = 1
            (2 / (1 + TAU), -1 / (1 + TAU)),
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "",
)
def test_two_steps(optimizer: ServerOptimizer, moves: tuple[float, float]) -> None:
    moments, first = optimizer.step(Moments(), as_vector([FIRST]), 0.5)
    _, second = optimizer.step(moments, as_vector([SECOND]), 0.5)
    assert first.dtype == second.dtype == np.dtype(np.float32)
    assert [float(first[0]), float(second[0])] == pytest.approx([0.5 * move for move in moves], rel=1e-5, abs=1e-7)


def test_a_method_moves_by_its_optimizer() -> None:
    method = FedBuff(buffer_size=1, server_learning_rate=0.5, optimizer=Momentum(beta=0.9))
    state, _ = method.fold(method.init(), contribution("a", 1, 0, 0), NUM_PARAMS)
    _, step = method.fold(state, contribution("a", 1, 0, 0), NUM_PARAMS)
    assert step is not None
    assert step.update.tolist() == pytest.approx([0.5 * 1.9, 0, 0])
    assert step.weights == {"a": 1.0}
