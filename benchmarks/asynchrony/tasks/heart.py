"""Heart disease from ten findings, in four hospitals."""

from torch import nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd

TASK = Task(
    name="heart",
    model=lambda: nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2)),
    loss=cross_entropy,
    metrics=[accuracy()],
    data=DataSchema(
        features=features("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"),
        window=1,
        target=ColumnTarget("disease", classes=("no", "yes")),
        validation_fraction=0.0,
    ),
    optimizer=sgd(),
    learning_rate=0.02,
    batch_size=16,
    local_steps=10,
)
