"""Every form of a convolution's backward pass, on sizes that do not come out even."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.parity import TOLERANCE


class Pictures(nn.Module):
    """Strides, dilation and groups over `(batch, 1, 11, 9)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(),
            nn.Conv2d(4, 6, 3, stride=2), nn.Tanh(),
            nn.Conv2d(6, 6, (3, 2), stride=2, dilation=(1, 2), padding=2, groups=2), nn.Tanh(),
            nn.Conv2d(6, 4, 1, stride=2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(1),
        )  # fmt: skip
        self(torch.zeros(1, 11, 9))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x.unsqueeze(1))
        return result


class Series(nn.Module):
    """Few channels into many and back, with dilation, stride and a long kernel, over `(batch, 11, 9)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(11, 4, 3, dilation=2, padding=1), nn.Tanh(),
            nn.Conv1d(4, 8, 2), nn.Tanh(),
            nn.Conv1d(8, 4, 16, padding=12), nn.Tanh(),
            nn.Conv1d(4, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(1),
        )  # fmt: skip
        self(torch.zeros(1, 11, 9))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def errors(model: type[nn.Module]) -> list[float]:
    """How far the runtimes end from float64 torch."""
    told: list[str] = []
    task = Task(
        name="convolutions",
        model=model,
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features(*"abcdefghi"), 11, ColumnTarget("wear")),
        optimizer=sgd(),
        learning_rate=0.05,
        batch_size=4,
    )
    compile_task(task, told.append)
    return [float(line.rsplit(" ", 1)[1]) for line in told if ": parameters within" in line]


def test_in_two_dimensions() -> None:
    found = errors(Pictures)
    assert len(found) == 4
    assert max(found) < TOLERANCE


def test_in_one_dimension() -> None:
    found = errors(Series)
    assert len(found) == 4
    assert max(found) < TOLERANCE
