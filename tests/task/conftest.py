from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    RemainingLifeTarget,
    Task,
    accuracy,
    adam,
    adamw,
    cross_entropy,
    features,
    mae,
    mean_squared_error,
    rmse,
    sgd,
)
from fieldfold.task.bundle import Bundle
from tests.task.built import built

logging.getLogger("torch.__trace").propagate = False  # ten thousand empty lines a build, which pytest would keep


class RemainingLife(nn.Module):
    """Window features of `(batch, 30, 14)`, then an MLP, with noise on its inputs while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(42, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        trend = x[:, -9:].mean(1) - x[:, :9].mean(1)
        window = torch.cat([x.mean(1), x[:, -6:].mean(1), 2 * trend], 1).clamp(-5, 5)
        if self.training:
            window = window + 0.2 * torch.randn_like(window)
        result: Tensor = self.layers(window)
        return result


class Convolutions(nn.Module):
    """A 1-D CNN over `(batch, 32, 3)` with four classes."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 16, 5, padding=2),
            norm(16),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Dropout1d(0.2),
            nn.Conv1d(16, 32, 3, stride=2, padding=1),
            norm(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x.transpose(1, 2))
        return result


SENSORS = DataSchema(
    features=features(*(f"sensor_{index}" for index in range(14))),
    window=30,
    target=RemainingLifeTarget(cap=125, scale=125),
)
VIBRATION = DataSchema(
    features=features("x", "y", "z", unit="g"),
    window=32,
    target=ColumnTarget("state", classes=("good", "worn", "loose", "broken")),
)


def regression(**changes: object) -> Task:
    """The MLP with Adam; `changes` replace fields."""
    fields: dict[str, object] = {
        "name": "remaining-life",
        "model": RemainingLife,
        "loss": mean_squared_error,
        "metrics": [rmse(scale=125, unit="cycles"), mae(scale=125, unit="cycles")],
        "data": SENSORS,
        "optimizer": adamw(weight_decay=0.1, decay_vectors=False),
        "learning_rate": 2e-3,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def classification(norm: Callable[[int], nn.Module], **changes: object) -> Task:
    """The CNN with momentum; `changes` replace fields."""
    fields: dict[str, object] = {
        "name": "vibration",
        "model": lambda: Convolutions(norm),
        "loss": cross_entropy,
        "metrics": [accuracy()],
        "data": VIBRATION,
        "optimizer": sgd(momentum=0.9, weight_decay=0.01, decoupled=True, decay_vectors=False),
        "learning_rate": 0.05,
        "batch_size": 32,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


TASKS: dict[str, Callable[[], Task]] = {
    "mlp": regression,
    "small-cnn-batch-norm": lambda: classification(nn.BatchNorm1d, proximal=0.01, clip_norm=1.0),
    "small-cnn-group-norm": lambda: classification(
        lambda size: nn.GroupNorm(4, size), optimizer=adam(), learning_rate=1e-3
    ),
}


def _bundle(name: str) -> Bundle:
    return built(name, TASKS[name])


@pytest.fixture(scope="session", params=sorted(TASKS))
def each_bundle(request: pytest.FixtureRequest) -> Bundle:
    return _bundle(request.param)


@pytest.fixture(scope="session")
def mlp_bundle() -> Bundle:
    return _bundle("mlp")


@pytest.fixture(scope="session")
def batch_norm_bundle() -> Bundle:
    return _bundle("small-cnn-batch-norm")
