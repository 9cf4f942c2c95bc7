"""The four models of the benchmarks, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.learning.data import WINDOW_CYCLES

_SENSORS = 14
_STAGES = 3
_PATCH = 3


def mlp(first: int = 256, second: int = 128) -> nn.Module:
    """8 x 8 pixels to 10 digits; 50,826 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )


def lenet() -> nn.Module:
    """28 x 28 pixels to 10 digits; 61,706 parameters (LeCun et al., 1998, with ReLU and max pooling)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def cnn(channels: int = 32, hidden: int = 72) -> nn.Module:
    """30 cycles of 14 sensors to three stages of wear, by convolution over time; 35,907 parameters."""
    return nn.Sequential(
        nn.Conv1d(_SENSORS, channels, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(channels, 2 * channels, 5, padding=2), nn.ReLU(), nn.MaxPool1d(3),
        nn.Flatten(), nn.Linear(10 * channels, hidden), nn.ReLU(), nn.Linear(hidden, _STAGES),
    )  # fmt: skip


class Transformer(nn.Module):
    """30 cycles of 14 sensors to three stages of wear: patches of 3 cycles, two encoder layers; 18,883 parameters."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(_PATCH * _SENSORS, width)
        self.places = nn.Parameter(torch.randn(WINDOW_CYCLES // _PATCH, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, _STAGES)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 14, 30) to (batch, 3)."""
        tokens = self.embed(x.transpose(1, 2).reshape(len(x), len(self.places), -1)) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        classes: Tensor = self.head(tokens.mean(1))
        return classes


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before it and added to what came in."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, width) to the same."""
        batch, time, width = x.shape
        split = self.queries_keys_values(self.before_attention(x)).view(batch, time, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, time, width))
        added: Tensor = x + self.hidden(self.before_hidden(x))
        return added


class Training(NamedTuple):
    """A model and its settings, chosen for what float32 reaches.

    Attributes:
        build: makes the model.
        optimizer: `sgd` has momentum 0.9; both start anew with each update.
        learning_rate: of the first version; halves every `half_life` versions, six times in a run, so that a run
            ends with a rate near zero and a model that has come to rest.
        updates: how many the run takes.
    """

    build: Callable[[], nn.Module]
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    half_life: int
    updates: int
    local_steps: int = 10
    batch_size: int = 32


TRAININGS: Mapping[str, Training] = {
    "mlp": Training(mlp, "sgd", 0.1, 50, 1500),
    "lenet": Training(lenet, "sgd", 0.05, 33, 1000),
    "cnn": Training(cnn, "adam", 1e-3, 33, 1000),
    "transformer": Training(Transformer, "adam", 2e-3, 33, 1000),
}

WIDE: Mapping[str, Training] = {
    "mlp": Training(lambda: mlp(2700, 2700), "sgd", 0.1, 100, 0),
    "cnn": Training(lambda: cnn(300, 2300), "adam", 3e-4, 60, 0),
    "transformer": Training(lambda: Transformer(704), "adam", 3e-4, 60, 0),
}
"""The same with about 8 million parameters, for the codec's speed."""
