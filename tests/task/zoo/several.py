"""Several inputs, several outputs, an input that is the target, and one weight in two places."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    InputTarget,
    Task,
    accuracy,
    adam,
    category,
    cross_entropy,
    features,
    huber,
    mae,
    mean_squared_error,
    rmse,
)

MACHINES = tuple(f"machine_{index}" for index in range(40))
STATES = ("good", "worn", "loose", "broken")


class Embedded(nn.Module):
    """Two categories as vectors beside the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.machine, self.shift = nn.Embedding(len(MACHINES), 12), nn.Embedding(3, 4)
        self.layers = nn.Sequential(nn.Linear(12 + 16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        result: Tensor = self.layers(torch.cat([x, self.machine(c[:, 0]), self.shift(c[:, 1])], 1))
        return result


class TwoHeads(nn.Module):
    """A number and a state from one body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16 * 6, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh())
        self.load, self.state = nn.Linear(32, 1), nn.Linear(32, len(STATES))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        return {"load": self.load(found), "state": self.state(found)}


class Tied(nn.Module):
    """An autoencoder of rows that decodes with the weights it encodes with."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(24, 8)
        self.bias = nn.Parameter(torch.zeros(24))
        self.scale = nn.Parameter(torch.ones(8))
        self.again = nn.Linear(8, 8)
        self.inner = nn.Linear(8, 8)
        self.inner.weight = self.again.weight

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.inner(torch.tanh(self.again(self.encode(x)))) * self.scale)
        return nn.functional.linear(code, self.encode.weight.t(), self.bias)


def _autoencoder() -> nn.Module:
    widths = [32 * 6, 64, 16, 64, 32 * 6]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ELU()]
    return nn.Sequential(*layers[:-1], nn.Unflatten(1, (32, 6)))


def _two_losses(outputs: dict[str, Tensor], load: Tensor, state: Tensor) -> Tensor:
    return mean_squared_error(outputs["load"], load) + 0.3 * cross_entropy(outputs["state"], state)


def autoencoder() -> Task:
    """Windows through sixteen numbers and back."""
    return Task(
        name="autoencoder",
        model=_autoencoder,
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features(*(f"axis_{index}" for index in range(6))), 32, InputTarget()),
        optimizer=adam(),
        learning_rate=1e-3,
        batch_size=32,
    )


def embedding() -> Task:
    """Categories and numbers: two inputs."""
    numbers = features(*(f"reading_{index}" for index in range(12)))
    return Task(
        name="embedding",
        model=Embedded,
        loss=huber(),
        metrics=[mae()],
        data=DataSchema(
            (*numbers, category("machine", *MACHINES), category("shift", "early", "late", others=True)),
            1,
            ColumnTarget("yield"),
        ),
        optimizer=adam(),
        learning_rate=1e-3,
        batch_size=32,
    )


def two_heads() -> Task:
    """Two outputs, two targets, two losses."""
    return Task(
        name="two-heads",
        model=TwoHeads,
        loss=_two_losses,
        metrics=[rmse().of("load"), accuracy().of("state", target=1)],
        data=DataSchema(
            features(*(f"axis_{index}" for index in range(6))),
            16,
            (ColumnTarget("load"), ColumnTarget("state", classes=STATES)),
        ),
        optimizer=adam(),
        learning_rate=1e-3,
        batch_size=32,
    )


def tied() -> Task:
    """A weight that stands in two places, and one that is used twice."""
    return Task(
        name="tied",
        model=Tied,
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features(*(f"reading_{index}" for index in range(24))), 1, InputTarget()),
        optimizer=adam(),
        learning_rate=1e-3,
        batch_size=32,
    )
