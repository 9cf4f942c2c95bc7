from __future__ import annotations

import logging

import pytest
from torch import nn

from fieldfold.task import Bundle
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd
from tests.task.built import built

logging.getLogger("torch.__trace").propagate = False  # ten thousand empty lines a build, which pytest would keep


def wear() -> Task:
    return Task(
        name="wear",
        model=nn.Sequential(nn.Flatten(), nn.Linear(8, 1)),
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features=features("force", "heat"), window=4, target=ColumnTarget("wear")),
        optimizer=sgd(),
        learning_rate=0.1,
        batch_size=8,
    )


@pytest.fixture(scope="session")
def honest() -> Bundle:
    """A bundle as it should be, of which each test makes one that is not."""
    return built("attacked", wear)
