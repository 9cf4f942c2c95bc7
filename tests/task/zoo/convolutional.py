"""One-dimensional convolutions over vibration: plain, temporal, InceptionTime, separable and U-Net."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, adam, cross_entropy, features, sgd

WINDOW = 128
AXES = 6
CLASSES = ("good", "worn", "loose", "broken")
VIBRATION = DataSchema(
    features=features(*(f"axis_{index}" for index in range(AXES)), unit="g"),
    window=WINDOW,
    target=ColumnTarget("state", classes=CLASSES),
)


class ChannelsFirst(nn.Module):
    """`(batch, window, features)` as convolutions want it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def _plain(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        ChannelsFirst(),
        nn.Conv1d(AXES, 32, 7, padding=3),
        norm(32),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 64, 5, padding=2),
        norm(64),
        nn.ReLU(),
        nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True),
        nn.Conv1d(64, 64, 3, stride=2, padding=1),
        norm(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(256, len(CLASSES)),
    )


class CausalBlock(nn.Module):
    """Two weight-normalised dilated convolutions that see the past only, and a shortcut (Bai et al., 2018)."""

    def __init__(self, channels_in: int, channels: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.first = weight_norm(nn.Conv1d(channels_in, channels, 3, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(channels, channels, 3, dilation=dilation))
        self.dropout = nn.Dropout(0.1)
        self.shortcut = nn.Conv1d(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(functional.relu(self.first(functional.pad(x, (self.past, 0)))))
        inner = self.dropout(functional.relu(self.second(functional.pad(inner, (self.past, 0)))))
        return functional.relu(inner + self.shortcut(x))


class TemporalConvolutions(nn.Module):
    """Four causal blocks whose reach doubles; the last position decides."""

    def __init__(self) -> None:
        super().__init__()
        widths = [AXES, 32, 32, 32, 32]
        self.blocks = nn.Sequential(*(CausalBlock(widths[i], widths[i + 1], 1 << i) for i in range(4)))
        self.last = nn.Linear(32, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.blocks(x.transpose(1, 2))[:, :, -1])
        return result


class InceptionBlock(nn.Module):
    """Parallel kernels of three lengths and a pooled branch behind one bottleneck (Ismail Fawaz et al., 2020)."""

    def __init__(self, channels_in: int, filters: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(channels_in, filters, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv1d(filters, filters, size, padding="same", bias=False) for size in (39, 19, 9)
        )
        self.pooled = nn.Sequential(
            nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(channels_in, filters, 1, bias=False)
        )
        self.norm = nn.BatchNorm1d(4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        joined = torch.cat([*(branch(narrow) for branch in self.branches), self.pooled(x)], 1)
        return functional.relu(self.norm(joined))


class InceptionTime(nn.Module):
    """Three blocks, a residual around them, the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(InceptionBlock(AXES, 16), InceptionBlock(64, 16), InceptionBlock(64, 16))
        self.shortcut = nn.Sequential(nn.Conv1d(AXES, 64, 1, bias=False), nn.BatchNorm1d(64))
        self.last = nn.Linear(64, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        result: Tensor = self.last(functional.relu(self.blocks(x) + self.shortcut(x)).mean(2))
        return result


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(channels, channels // 4, 1)
        self.wide = nn.Conv1d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.wide(functional.relu(self.narrow(functional.adaptive_avg_pool1d(x, 1))))
        return x * functional.hardsigmoid(scale)


class SeparableBlock(nn.Module):
    """Inverted residual of MobileNetV3 (Howard et al., 2019)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = 3 * channels_in
        self.layers = nn.Sequential(
            nn.Conv1d(channels_in, wide, 1, bias=False), nn.BatchNorm1d(wide), nn.Hardswish(),
            nn.Conv1d(wide, wide, 5, stride, 2, groups=wide, bias=False), nn.BatchNorm1d(wide), nn.Hardswish(),
            SqueezeExcitation(wide),
            nn.Conv1d(wide, channels, 1, bias=False), nn.BatchNorm1d(channels),
        )  # fmt: skip
        self.shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.layers(x)
        return x + inner if self.shortcut else inner


def _separable() -> nn.Module:
    return nn.Sequential(
        ChannelsFirst(),
        nn.Conv1d(AXES, 16, 5, 2, 2, bias=False), nn.BatchNorm1d(16), nn.Hardswish(),
        SeparableBlock(16, 16, 1), SeparableBlock(16, 24, 2), SeparableBlock(24, 24, 1),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, len(CLASSES)),
    )  # fmt: skip


class UNet(nn.Module):
    """Down by pooling, up by nearest, linear and transposed, with the finer level joined at each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = self._pair(AXES, 16)
        self.down1, self.down2, self.down3 = self._pair(16, 32), self._pair(32, 48), self._pair(48, 64)
        self.up3 = nn.Upsample(scale_factor=2, mode="nearest")
        self.join3 = self._pair(64 + 48, 48)
        self.up2 = nn.Upsample(scale_factor=2, mode="linear", align_corners=False)
        self.join2 = self._pair(48 + 32, 32)
        self.up1 = nn.ConvTranspose1d(32, 16, 2, stride=2)
        self.join1 = self._pair(16 + 16, 16)
        self.last = nn.Conv1d(16, len(CLASSES), 1)

    @staticmethod
    def _pair(channels_in: int, channels: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm1d(channels), nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        level0 = self.entry(x.transpose(1, 2))
        level1 = self.down1(functional.max_pool1d(level0, 2))
        level2 = self.down2(functional.avg_pool1d(level1, 2))
        level3 = self.down3(functional.max_pool1d(level2, 2))
        level2 = self.join3(torch.cat([self.up3(level3), level2], 1))
        level1 = self.join2(torch.cat([self.up2(level2), level1], 1))
        level0 = self.join1(torch.cat([self.up1(level1), level0], 1))
        result: Tensor = self.last(level0).transpose(1, 2)
        return result


def _vibration(name: str, model: Callable[[], nn.Module], **changes: object) -> Task:
    fields: dict[str, object] = {
        "name": name,
        "model": model,
        "loss": cross_entropy,
        "metrics": [accuracy()],
        "data": VIBRATION,
        "optimizer": sgd(momentum=0.9),
        "learning_rate": 0.02,
        "batch_size": 32,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def cnn_batch_norm() -> Task:
    """Three convolutions with BatchNorm."""
    return _vibration("cnn-batch-norm", lambda: _plain(nn.BatchNorm1d))


def cnn_group_norm() -> Task:
    """The same with GroupNorm."""
    return _vibration(
        "cnn-group-norm",
        lambda: _plain(lambda channels: nn.GroupNorm(8, channels)),
        optimizer=adam(),
        learning_rate=1e-3,
    )


def temporal_convolutions() -> Task:
    """Dilation, residuals, weight normalisation."""
    return _vibration("temporal-convolutions", TemporalConvolutions, optimizer=adam(), learning_rate=1e-3)


def inception_time() -> Task:
    """Long kernels side by side."""
    return _vibration("inception-time", InceptionTime)


def separable() -> Task:
    """Depthwise-separable convolutions with squeeze-and-excitation."""
    return _vibration("separable", _separable)


def u_net() -> Task:
    """Three levels down and up; a state for every step."""
    data = DataSchema(VIBRATION.features, WINDOW, ColumnTarget("state", classes=CLASSES, per_step=True))
    return _vibration("u-net", UNet, data=data)
