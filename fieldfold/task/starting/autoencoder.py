"""Readings of a healthy machine: what cannot be rebuilt is odd. Lines with <- are yours to change."""

from torch import Tensor, nn

from fieldfold.task.authoring import DataSchema, InputTarget, Task, adam, features, mean_squared_error, rmse

WINDOW = 32  # <- consecutive rows that the model sees at once
AXES = ("x", "y", "z")  # <-
CODE = 8  # numbers that a whole window is squeezed into


class Model(nn.Module):
    """An ordinary network that squeezes a window into a few numbers, and rebuilds it from them."""

    def __init__(self) -> None:
        super().__init__()
        size = WINDOW * len(AXES)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 48), nn.ReLU(), nn.Linear(48, CODE))
        self.decoder = nn.Sequential(nn.Linear(CODE, 48), nn.ReLU(), nn.Linear(48, size))

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, WINDOW, axes), normalised to mean 0 and deviation 1 over the fleet, to the same."""
        rebuilt: Tensor = self.decoder(self.encoder(x))
        return rebuilt.reshape(x.shape)


TASK = Task(
    name="starting",
    description="Vibration of a healthy gearbox",  # <-
    model=Model,
    loss=mean_squared_error,
    metrics=[rmse(unit="deviations")],
    data=DataSchema(
        # gateways name their columns for these in node.toml, [data.columns]
        features=features(*AXES, unit="g"),
        window=WINDOW,
        stride=8,  # the next window starts eight rows later
        target=InputTarget(),  # no column: the normalised input itself
    ),
    optimizer=adam(),
    learning_rate=1e-3,
    batch_size=32,
    local_steps=20,  # steps between two updates that a gateway sends
)
