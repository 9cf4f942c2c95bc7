"""Which of several faults a row of a table shows: none, one or more. Lines with <- are yours to change."""

from torch import nn

from fieldfold.task.authoring import (
    DataSchema,
    LabelsTarget,
    Task,
    adam,
    features,
    label_accuracy,
    weighted_binary_cross_entropy,
)

FAULTS = ("leak", "blockage", "air")  # <- columns that hold 1 or 0, true or false, yes or no
WEIGHTS = (10.0, 10.0, 20.0)  # <- how many times a 1 counts; without weights: loss=binary_cross_entropy
MEASURED = ("pressure_in", "pressure_out", "flow", "power")  # <-


def model() -> nn.Module:
    """An ordinary network from (batch, features) to one score a fault: above 0 says that it is there."""
    return nn.Sequential(
        nn.Linear(len(MEASURED), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, len(FAULTS))
    )


TASK = Task(
    name="starting",
    description="Faults of a pump from its readings",  # <-
    model=model,
    loss=weighted_binary_cross_entropy(WEIGHTS),
    metrics=[label_accuracy()],
    data=DataSchema(
        # gateways name their columns for these and for the faults in node.toml, [data.columns]
        features=features(*MEASURED),
        window=1,  # every row is an example by itself
        target=LabelsTarget(FAULTS),
    ),
    optimizer=adam(),
    learning_rate=1e-3,
    batch_size=64,
    local_steps=20,  # steps between two updates that a gateway sends
)
