"""Two-dimensional networks over spectrograms and small pictures."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, adam, cross_entropy, features, sgd

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
        return x.unflatten(2, (-1, self.channels)).permute(0, 3, 1, 2)


def _lenet() -> nn.Module:
    return nn.Sequential(
        AsPicture(1),
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 4, 1)
        self.wide = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.wide(functional.relu(self.narrow(functional.adaptive_avg_pool2d(x, 1))))
        return x * functional.hardsigmoid(scale)


class SeparableBlock(nn.Module):
    """Inverted residual of MobileNetV3 (Howard et al., 2019)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = 3 * channels_in
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            SqueezeExcitation(wide),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.layers(x)
        return x + inner if self.shortcut else inner


def _separable() -> nn.Module:
    return nn.Sequential(
        AsPicture(1),
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        SeparableBlock(16, 16, 1), SeparableBlock(16, 24, 2), SeparableBlock(24, 24, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 10),
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
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _pictures_task(name: str, model: Callable[[], nn.Module], data: DataSchema, **changes: object) -> Task:
    fields: dict[str, object] = {
        "name": name,
        "model": model,
        "loss": cross_entropy,
        "metrics": [accuracy()],
        "data": data,
        "optimizer": adam(),
        "learning_rate": 1e-3,
        "batch_size": 32,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def lenet() -> Task:
    """LeNet-5 on 28 x 28 (LeCun et al., 1998)."""
    return _pictures_task("lenet", _lenet, _pictures(28, 1), optimizer=sgd(momentum=0.9), learning_rate=0.05)


def separable() -> Task:
    """Depthwise-separable convolutions with squeeze-and-excitation on 32 x 32 spectrograms."""
    return _pictures_task("separable", _separable, _pictures(32, 1))


def resnet() -> Task:
    """A small ResNet on 32 x 32 in three channels."""
    return _pictures_task("resnet", _resnet, _pictures(32, 3))
