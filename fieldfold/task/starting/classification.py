"""A class from a window of sensor readings and a category. Lines with <- are yours to change."""

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    Task,
    accuracy,
    adam,
    category,
    features,
    weighted_cross_entropy,
)

WINDOW = 64  # <- consecutive rows that the model sees at once
STATES = ("good", "worn", "broken")  # <- as they stand in the column, in the order of their scores
WEIGHTS = (1.0, 2.0, 5.0)  # <- what is rare and matters counts more; without weights: loss=cross_entropy
TOOL = category("tool", "drill", "mill", others=True)  # <- others: a new tool gets an index of its own


class Model(nn.Module):
    """An ordinary network: a small convolution over time, and a learned vector for each tool."""

    def __init__(self) -> None:
        super().__init__()
        self.tool = nn.Embedding(TOOL.num_categories, 4)
        self.readings = nn.Sequential(
            nn.Conv1d(2, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Conv1d(16, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(16), nn.ReLU(),
        )  # fmt: skip
        self.scores = nn.Linear(16 + 4, len(STATES))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """From numbers (batch, WINDOW, 2) and categories, int64 (batch, WINDOW, 1), to scores (batch, classes)."""
        readings = self.readings(x.transpose(1, 2)).mean(2)
        scores: Tensor = self.scores(torch.cat([readings, self.tool(c[:, -1, 0])], 1))
        return scores


TASK = Task(
    name="starting",
    description="State of a press from vibration, current and its tool",  # <-
    model=Model,
    loss=weighted_cross_entropy(WEIGHTS),
    metrics=[accuracy()],
    data=DataSchema(
        # gateways name their columns for these in node.toml, [data.columns]
        features=(*features("vibration", unit="mm/s"), *features("current", unit="A"), TOOL),  # <-
        window=WINDOW,
        stride=4,  # the next window starts four rows later
        target=ColumnTarget("state", classes=STATES),  # <- a column, in the window's last row
    ),
    optimizer=adam(),
    learning_rate=1e-3,
    batch_size=32,
    local_steps=20,  # steps between two updates that a gateway sends
)
