"""5,000 digits of MNIST, each two by two pixels made one: 14 x 14."""

from torch import nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd

TASK = Task(
    name="mnist5k",
    model=lambda: nn.Sequential(nn.Linear(196, 32), nn.ReLU(), nn.Linear(32, 10)),
    loss=cross_entropy,
    metrics=[accuracy()],
    data=DataSchema(
        features=features(*(f"p{pixel}" for pixel in range(196))),
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
