"""Remaining useful life of turbofan engines from 30 cycles of 14 sensors: an ordinary PyTorch model."""

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import (
    DataSchema,
    LearningRate,
    RemainingLifeTarget,
    Task,
    adamw,
    features,
    mean_squared_error,
    rmse,
)

LONGEST_LIFE = 125.0  # cycles; a healthy engine shows no sign of its age


class WearModel(nn.Module):
    """Level, recent level and trend of every sensor, then a small network."""

    def __init__(self, dropout: float = 0.1, hidden_dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(3 * 14, 96), nn.ReLU(), nn.Dropout(hidden_dropout),
            nn.Linear(96, 64), nn.ReLU(), nn.Dropout(hidden_dropout),
        )  # fmt: skip
        self.life = nn.Linear(64, 1)
        nn.init.constant_(self.life.bias, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised windows (batch, 30 cycles, 14 sensors) to remaining life as a share of the longest."""
        x = x.clamp(-5, 5)
        level, recent = x.mean(1), x[:, -6:].mean(1)
        trend = 2 * (x[:, -9:].mean(1) - x[:, :9].mean(1))
        life: Tensor = self.life(self.layers(torch.cat([level, recent, trend], 1)))
        return life


TASK = Task(
    name="turbofan",
    description="Cycles until failure of NASA's simulated turbofan engines (C-MAPSS FD001)",
    model=WearModel,
    loss=mean_squared_error,
    metrics=[rmse(scale=LONGEST_LIFE, unit="cycles")],
    data=DataSchema(
        features=features(*[f"s{number}" for number in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)]),
        window=30,
        target=RemainingLifeTarget(cap=LONGEST_LIFE, scale=LONGEST_LIFE),
    ),
    optimizer=adamw(weight_decay=2.0, decay_vectors=False),
    learning_rate=LearningRate(2e-3, half_life=60, floor=1e-4),
    batch_size=64,
    local_steps=10,
)
