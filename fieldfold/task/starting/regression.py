"""A number from a window of sensor readings. Lines with <- are yours to change."""

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, adam, features, mae, mean_squared_error, rmse

WINDOW = 32  # <- consecutive rows that the model sees at once
LARGEST = 100.0  # <- about the largest target: numbers near 1 train best


class Model(nn.Module):
    """An ordinary network: level, spread and newest reading of every feature, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * 3, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, WINDOW, features), normalised to mean 0 and deviation 1 over the fleet, to (batch, 1)."""
        x = x.clamp(-5, 5)  # a broken sensor must not carry the model away
        found: Tensor = self.layers(torch.cat([x.mean(1), x.var(1, correction=0), x[:, -1]], 1))
        return found


TASK = Task(
    name="starting",
    description="Wear of a pump from pressure, flow and temperature",  # <-
    model=Model,
    # one value an example, shape (batch,); your own: any function (output, target) -> (batch,)
    loss=mean_squared_error,
    # the first one decides which of two models is better
    metrics=[rmse(scale=LARGEST, unit="um"), mae(scale=LARGEST, unit="um")],  # <-
    data=DataSchema(
        # gateways name their columns for these in node.toml, [data.columns]
        features=(*features("pressure", "flow", unit="bar"), *features("temperature", unit="C")),  # <-
        window=WINDOW,
        target=ColumnTarget("wear", scale=LARGEST, unit="um"),  # <- a column, in the window's last row
    ),
    optimizer=adam(),
    learning_rate=1e-3,
    batch_size=32,
    local_steps=20,  # steps between two updates that a gateway sends
)
