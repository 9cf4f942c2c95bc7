"""What a task keeps local is trained and kept on the node, and never leaves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fieldfold.codec import decode
from fieldfold.sensors.statistics import normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.task_file import load_task
from fieldfold.wire.messages import ClientUpdate, unpack
from node_app.bench import Bench
from node_app.config import NodeConfig, TrainingConfig
from node_app.follow import Model
from node_app.store import Parcel, Store
from tests.identities import link_config
from tests.node_app.turbofan import TASK_FILE, data_of

RUN = "ab" * 8


class Open:
    """A gate that lets everything pass."""

    def passes(self, wait_s: float) -> bool:
        return wait_s < 1

    def stepped(self, step: int, of: int, loss: float) -> None:
        assert step <= of
        assert np.isfinite(loss)


@pytest.fixture(scope="module")
def personal() -> Bundle:
    """The turbofan example, of which every gateway has a head of its own."""
    return compile_task(dataclasses.replace(load_task(TASK_FILE), local=["life.*"]), lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "node.db")) as opened:
        yield opened


def bench_of(bundle: Bundle, store: Store, *engines: int) -> Bench:
    config = NodeConfig(
        name="press-07",
        federation="plant",
        broker=link_config("press-07"),
        data=data_of(*engines),
        training=TrainingConfig(steps_per_update=5),
    )
    return Bench(bundle, config, Path(), store)


def first_model(bench: Bench, version: int = 0, run: str = RUN) -> Model:
    return Model(run, version, bench.bundle.initial_parameters(), normalisation(bench.sums))


def turn(bench: Bench, version: int = 0) -> Parcel:
    """Adopts the first parameters under a version, trains and hands in."""
    model = first_model(bench, version)
    bench.adopt(model)
    result = bench.train(model, Open())
    assert result is not None
    return bench.hand_in(model, result)


def test_the_vector_that_travels_has_no_place_for_them(personal: Bundle) -> None:
    layout, local, _ = personal.manifest.layouts
    assert [spec.name for spec in local.tensors] == ["life.weight", "life.bias"]
    assert not {spec.name for spec in layout.tensors} & {spec.name for spec in local.tensors}
    assert layout.num_params + local.num_params == personal.section("parameters").__len__() // 4


def test_no_byte_of_them_is_in_what_the_node_sends(personal: Bundle, store: Store) -> None:
    bench = bench_of(personal, store, 3, 5, 8)
    bodies = [turn(bench, version).body for version in range(2)]
    trained = bench._local
    assert not np.array_equal(trained, personal.initial_local())
    for body in bodies:
        update = unpack(ClientUpdate, body)
        assert decode(update.payload, personal.manifest.layout.num_params).any()
        everything = b"".join(part for part in msgspec.structs.astuple(update) if isinstance(part, bytes))
        for values in (trained, trained - personal.initial_local()):
            assert not any(value.tobytes() in everything for value in values)


def test_they_are_trained_on_from_one_update_to_the_next(personal: Bundle, store: Store) -> None:
    bench = bench_of(personal, store, 3, 5, 8)
    found = []
    for version in range(3):
        turn(bench, version)
        found.append(bench._local)
    assert not any(np.array_equal(before, after) for before, after in pairwise(found))


def test_the_model_is_judged_and_served_with_them(personal: Bundle, store: Store) -> None:
    bench = bench_of(personal, store, 3, 5, 8)
    turn(bench)
    untrained = bench.global_score
    turn(bench, 1)
    assert bench.global_score != untrained  # the same shared parameters, a trained head
    assert bench.serving.served is not None
    assert bench.serving.served.local.shape == bench._local.shape


def test_they_outlive_a_restart(personal: Bundle, store: Store) -> None:
    before = bench_of(personal, store, 3, 5, 8)
    turn(before)
    before.keep(first_model(before))
    after = bench_of(personal, store, 3, 5, 8)
    after.adopt(first_model(after))
    np.testing.assert_array_equal(after._local, before._local)
    assert before.serving.served is not None
    assert after.serving.served is not None
    np.testing.assert_array_equal(after.serving.served.parameters, before.serving.served.parameters)


def test_a_model_that_begins_anew_begins_with_the_first_ones(personal: Bundle, store: Store) -> None:
    before = bench_of(personal, store, 3, 5, 8)
    turn(before)
    before.keep(first_model(before))
    after = bench_of(personal, store, 3, 5, 8)
    after.adopt(first_model(after, run="cd" * 8))
    np.testing.assert_array_equal(after._local, personal.initial_local())


def test_a_run_that_is_abandoned_leaves_them_as_they_were(personal: Bundle, store: Store) -> None:
    class Shut(Open):
        def passes(self, wait_s: float) -> bool:
            return wait_s < 0

    bench = bench_of(personal, store, 3, 5, 8)
    model = first_model(bench)
    bench.adopt(model)
    assert bench.train(model, Shut()) is None
    np.testing.assert_array_equal(bench._local, personal.initial_local())
