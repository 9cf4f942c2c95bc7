"""A task of two parameters, four windows and no momentum, whose steps can be taken by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fieldfold.params import Vector, as_vector
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd

RATE = 0.05
X = np.array([[1.0, 2.0], [0.5, -1.0], [-1.5, 0.5], [2.0, 1.0]], np.float32)
Y = np.array([[1.0], [-2.0], [0.5], [3.0]], np.float32)
V, W = as_vector([0.7, -0.3]), as_vector([-0.2, 0.4])


def linear() -> Task:
    """y = v x, so that a step can be taken by hand."""
    return Task(
        name="linear",
        model=lambda: nn.Linear(2, 1, bias=False),
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features("force", "heat"), 1, ColumnTarget("wear")),
        optimizer=sgd(),
        learning_rate=RATE,
        batch_size=len(X),
    )


def by_hand(steps: int, pull: float, start: Vector = V) -> NDArray[np.float64]:
    """v <- v - eta (2 mean(x (v x - y)) + lambda (v - w))."""
    v, w, x, y = (values.astype(np.float64) for values in (start, W, X, Y[:, 0]))
    for _ in range(steps):
        v = v - RATE * (2 * ((x @ v - y)[:, None] * x).mean(0) + pull * (v - w))
    return v
