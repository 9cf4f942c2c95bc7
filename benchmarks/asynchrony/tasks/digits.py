"""Handwritten digits of 8 x 8 pixels: a small network that trains in milliseconds."""

from torch import nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd

TASK = Task(
    name="digits",
    model=lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
    loss=cross_entropy,
    metrics=[accuracy()],
    data=DataSchema(
        features=features(*(f"p{pixel}" for pixel in range(64))),
        window=1,
        target=ColumnTarget("digit", classes=tuple("0123456789")),
        validation_fraction=0.0,
        normalisation="none",
    ),
    optimizer=sgd(),
    learning_rate=0.1,
    batch_size=16,
    local_steps=10,
)
