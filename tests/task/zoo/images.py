"""Two-dimensional networks over small pictures."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd

CLASSES = tuple(f"class_{index}" for index in range(10))


def _pictures(side: int, channels: int) -> DataSchema:
    names = (f"column_{column}_{channel}" for column in range(side) for channel in range(channels))
    return DataSchema(features=features(*names), window=side, target=ColumnTarget("kind", classes=CLASSES))


class AsPicture(nn.Module):
    """`(batch, rows, columns x channels)` -> `(batch, channels, rows, columns)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.channels).permute(0, 3, 1, 2)


def _lenet() -> nn.Module:
    return nn.Sequential(
        AsPicture(1),
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut (He et al., 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.second(functional.relu(self.norm1(self.first(x)))))
        return functional.relu(inner + self.shortcut(x))


def _resnet() -> nn.Module:
    return nn.Sequential(
        AsPicture(3),
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        ResidualBlock(8, 8, 1), ResidualBlock(8, 16, 2), ResidualBlock(16, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def _pictures_task(name: str, model: Callable[[], nn.Module], data: DataSchema, **changes: object) -> Task:
    fields: dict[str, object] = {
        "name": name,
        "model": model,
        "loss": cross_entropy,
        "metrics": [accuracy()],
        "data": data,
        "optimizer": sgd(momentum=0.9),
        "learning_rate": 0.02,
        "batch_size": 32,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def lenet() -> Task:
    """LeNet-5 on 28 x 28 (LeCun et al., 1998)."""
    return _pictures_task("lenet", _lenet, _pictures(28, 1))


def resnet() -> Task:
    """A small ResNet on 32 x 32 in three channels."""
    return _pictures_task("resnet", _resnet, _pictures(32, 3))
