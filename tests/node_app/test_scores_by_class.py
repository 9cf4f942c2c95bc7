"""What a node tells of the released model, class by class of its own validation data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fieldfold.params import as_vector
from fieldfold.sensors.source import DataConfig
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ClientUpdate, unpack
from node_app.bench import Bench
from node_app.config import NodeConfig, TrainingConfig
from node_app.follow import Model
from node_app.store import Store
from tests.identities import link_config
from tests.node_app.test_local_parameters import Open, bench_of, turn
from tests.node_app.turbofan import turbofan
from tests.task.built import built

STATES = ("good", "worn", "broken")
ALWAYS_GOOD = as_vector([0, 0, 0, 0, 0, 0, 1, 0, 0])
"""Weights of no influence, and a bias."""


def sorting() -> Task:
    return Task(
        name="sorting",
        model=nn.Linear(2, 3),
        loss=cross_entropy,
        metrics=[accuracy()],
        data=DataSchema(features("force", "heat"), 1, ColumnTarget("state", classes=STATES), normalisation="none"),
        optimizer=sgd(),
        learning_rate=0.1,
        batch_size=8,
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return built("sorting", sorting)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "node.db")) as opened:
        yield opened


def told(bundle: Bundle, store: Store, folder: Path, states: Sequence[str]) -> ClientUpdate:
    """The update of a node whose rows are of these states, the last ones for validation."""
    rows = (f"{force:.3f},{heat:.3f}" for force, heat in np.random.default_rng(0).normal(size=(len(states), 2)))
    lines = ["force,heat,state", *(f"{row},{state}" for row, state in zip(rows, states, strict=True))]
    (folder / "press.csv").write_text("\n".join(lines))
    config = NodeConfig(
        name="press-07",
        federation="plant",
        broker=link_config("press-07"),
        data=DataConfig(files=("press.csv",)),
        training=TrainingConfig(steps_per_update=1),
    )
    bench = Bench(bundle, config, folder, store)
    model = Model("ab" * 8, 0, ALWAYS_GOOD, None)
    bench.adopt(model)
    result = bench.train(model, Open())
    assert result is not None
    return unpack(ClientUpdate, bench.hand_in(model, result).body)


def test_each_class_that_it_holds_and_none_of_the_others(bundle: Bundle, store: Store, tmp_path: Path) -> None:
    update = told(bundle, store, tmp_path, ["good", "worn"] * 40 + ["good"] * 14 + ["worn"] * 6)
    (good, worn, broken), (score, count) = update.class_scores, update.base_score
    assert (good[0], worn, broken) == (1.0, (0.0, 6), (0.0, 0))
    assert count == good[1] + worn[1]
    assert score == pytest.approx(good[1] / count)


def test_a_regression_has_none(store: Store) -> None:
    update = unpack(ClientUpdate, turn(bench_of(turbofan(), store, 3, 5, 8)).body)
    assert update.base_score[1] > 0
    assert update.class_scores == ()
