"""Logistic regression, and a multilayer perceptron with normalisation and dropout."""

from __future__ import annotations

from torch import nn

from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    Task,
    accuracy,
    adam,
    cross_entropy,
    features,
    mean_squared_error,
    rmse,
    sgd,
)

STATES = DataSchema(
    features=features("x", "y", "z", "heat", unit="g"),
    window=16,
    target=ColumnTarget("state", classes=("good", "worn", "loose", "broken")),
)
LIFE = DataSchema(
    features=features(*(f"sensor_{index}" for index in range(14))),
    window=30,
    target=ColumnTarget("life"),
)


def logistic_regression() -> Task:
    """One linear layer over the flattened window."""
    return Task(
        name="logistic-regression",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16 * 4, 4)),
        loss=cross_entropy,
        metrics=[accuracy()],
        data=STATES,
        optimizer=sgd(),
        learning_rate=0.1,
        batch_size=32,
    )


def perceptron() -> Task:
    """Three layers, BatchNorm before and dropout behind each activation."""

    def block(width: int, out: int) -> list[nn.Module]:
        return [nn.Linear(width, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(), nn.Dropout(0.2)]

    return Task(
        name="perceptron",
        model=lambda: nn.Sequential(nn.Flatten(), *block(14 * 30, 128), *block(128, 64), nn.Linear(64, 1)),
        loss=mean_squared_error,
        metrics=[rmse()],
        data=LIFE,
        optimizer=adam(weight_decay=0.01),
        learning_rate=1e-3,
        batch_size=32,
    )
