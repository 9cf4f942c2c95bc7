"""A class for every row of a window: what a machine is doing, moment by moment. Lines with <- are yours to change."""

from torch import Tensor, nn
from torch.nn import functional

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, adam, cross_entropy, features

WINDOW = 64  # <- consecutive rows that the model sees at once
PHASES = ("idle", "heating", "pressing", "cooling")  # <- as they stand in the column
MEASURED = ("power", "temperature", "position")  # <-


class Layer(nn.Module):
    """A convolution that looks back only, ever farther with its dilation, and is added to what came in."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.back = 2 * dilation
        self.convolution = nn.Conv1d(channels, channels, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, channels, WINDOW) to the same."""
        return x + functional.relu(self.convolution(functional.pad(x, (self.back, 0))))


class Model(nn.Module):
    """An ordinary network: each row's score comes from that row and the 30 before it."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv1d(len(MEASURED), 24, 1)
        self.layers = nn.Sequential(*(Layer(24, dilation) for dilation in (1, 2, 4, 8)))
        self.scores = nn.Linear(24, len(PHASES))

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, WINDOW, features), normalised over the fleet, to scores (batch, WINDOW, classes)."""
        scores: Tensor = self.scores(self.layers(self.widen(x.transpose(1, 2))).transpose(1, 2))
        return scores


TASK = Task(
    name="starting",
    description="Phases of a press from power, temperature and position",  # <-
    model=Model,
    loss=cross_entropy,  # averaged over the rows of a window
    metrics=[accuracy()],
    data=DataSchema(
        # gateways name their columns for these in node.toml, [data.columns]
        features=features(*MEASURED),
        window=WINDOW,
        stride=16,  # the next window starts sixteen rows later
        # per_step: one class for each row; without it one for the window, that of its last row
        target=ColumnTarget("phase", classes=PHASES, per_step=True),  # <-
    ),
    optimizer=adam(),
    learning_rate=1e-3,
    batch_size=16,
    local_steps=20,  # steps between two updates that a gateway sends
)
