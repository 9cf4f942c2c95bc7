"""Ditto on a node: a model of its own, pulled towards the fleet's, served where it is better, and never sent."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fieldfold.control.client import ControlClient
from fieldfold.params import Vector
from fieldfold.sensors.dataset import load
from fieldfold.sensors.statistics import normalisation
from fieldfold.sensors.windows import Windows, origins
from fieldfold.task import RuntimeSettings, open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.task_file import load_task
from fieldfold.task.manifest import Metric
from node_app.adopt import Served
from node_app.bench import Bench
from node_app.config import NodeConfig, TrainingConfig
from node_app.follow import Model
from node_app.personal import Personal
from node_app.serving import Serving
from node_app.store import Parcel, Store, StoredVector
from node_app.train import plan_run
from tests.identities import broker_table, link_config
from tests.node_app.beside import Beside
from tests.node_app.process import PATIENCE_S, NodeProcess
from tests.node_app.running import Running, joined, until
from tests.node_app.turbofan import TASK_FILE, data_of
from tests.task.built import built
from tests.task.linear import RATE, V, W, X, Y, by_hand, linear

RUN = "ab" * 8
NOTHING = np.zeros(0, np.float32)
ACCURACY = Metric("accuracy", "higher")


class Open:
    """A gate that lets `steps` pass."""

    def __init__(self, steps: int = 1_000_000) -> None:
        self.left = steps
        self.told = 0

    def passes(self, wait_s: float) -> bool:
        self.left -= 1
        return wait_s < 1 and self.left >= 0

    def stepped(self, step: int, of: int, loss: float) -> None:
        assert step <= of
        assert np.isfinite(loss)
        self.told += 1


# -- the run itself --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["onnx", "torch"])
def walk(request: pytest.FixtureRequest) -> Callable[..., Personal]:
    """Takes steps of the personal model of the linear task, from v, where there is one, towards w."""
    bundle = built("linear", linear)

    def walked(pull: float, steps: int, start: Vector | None = V, gate: Open | None = None) -> Personal:
        config = TrainingConfig(personal=pull, runtime=request.param, device="cpu")
        personal = Personal(bundle, config)
        if start is not None:
            personal.model = Served(3, start, NOTHING, None, personal=True)
        plan = msgspec.structs.replace(plan_run(bundle.manifest, config, 4, len(X), seed=1), num_steps=steps)
        windows = Windows(X, Y, np.arange(len(X)), 1, origins(bundle.manifest.data))
        runtime = open_runtime(bundle, RuntimeSettings(runtime=request.param, device="cpu"))
        trained = personal.train(runtime, Model(RUN, 4, W, None), NOTHING, windows, plan, gate or Open())
        personal.model = trained or personal.model
        return personal

    return walked


def parameters(personal: Personal) -> Vector:
    assert personal.model is not None
    return personal.model.parameters


@pytest.mark.parametrize("pull", [0.1, 2.0])
def test_its_steps_are_those_by_hand(walk: Callable[..., Personal], pull: float) -> None:
    np.testing.assert_allclose(parameters(walk(pull, 3)), by_hand(3, pull), rtol=1e-5, atol=1e-6)


def test_it_begins_at_the_released_version(walk: Callable[..., Personal]) -> None:
    begun = walk(0.1, 3, None)
    np.testing.assert_allclose(parameters(begun), by_hand(3, 0.1, W), rtol=1e-5, atol=1e-6)
    assert begun.model is not None
    assert (begun.model.version, begun.model.personal, begun.score) == (4, True, None)


def test_a_strong_pull_keeps_it_at_the_released_version_and_a_weak_one_lets_it_go(
    walk: Callable[..., Personal],
) -> None:
    far = [float(np.linalg.norm(parameters(walk(pull, 30)) - W)) for pull in (1e-3, 1.0, 1 / RATE)]
    assert far[0] > far[1] > 4 * far[2]


def test_a_run_that_the_gate_ends_leaves_it_as_it_was(walk: Callable[..., Personal]) -> None:
    np.testing.assert_array_equal(parameters(walk(0.1, 3, gate=Open(2))), V)


def test_the_loss_of_its_run_is_told_to_nobody(walk: Callable[..., Personal]) -> None:
    gate = Open()
    walk(0.1, 3, gate=gate)
    assert gate.told == 0


def test_where_it_diverges_it_begins_anew_and_says_so_once(
    walk: Callable[..., Personal], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert walk(1000.0, 200).model is None
    assert [record.message for record in caplog.records if "training.personal" in record.message] == [
        "the personal model begins anew; lower training.personal: "
        + caplog.records[-1].message.rpartition("training.personal: ")[2]
    ]


# -- beside the updates ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "node.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def with_locals() -> Bundle:
    """The turbofan example, of which every gateway has a head of its own."""
    return compile_task(dataclasses.replace(load_task(TASK_FILE), local=["life.*"]), lambda _: None)


def bench_of(bundle: Bundle, store: Store, **training: Any) -> Bench:
    config = NodeConfig(
        name="press-07",
        federation="plant",
        broker=link_config("press-07"),
        data=data_of(3, 5, 8),
        training=TrainingConfig(**{"steps_per_update": 20, **training}),
    )
    return Bench(bundle, config, Path(), store)


def released(bench: Bench, version: int = 0, run: str = RUN) -> Model:
    return Model(run, version, bench.bundle.initial_parameters(), normalisation(bench.sums))


def turn(bench: Bench, version: int = 0, *, run: str = RUN) -> Parcel:
    """What the learner does with a version."""
    model = released(bench, version, run)
    bench.adopt(model)
    result = bench.train(model, Open())
    assert result is not None
    parcel = bench.hand_in(model, result)
    if bench.personal.is_on:
        bench.train_personal(model, result.num_steps, Open())
    return parcel


def own(bench: Bench) -> Served:
    assert bench.personal.model is not None
    return bench.personal.model


def served(bench: Bench) -> Served:
    assert bench.serving.served is not None
    return bench.serving.served


@pytest.mark.parametrize(
    "training", [{}, {"keep_optimizer": True}, {"proximal": 0.3, "clip_norm": 0.5}, {"runtime": "torch"}]
)
def test_what_is_sent_is_the_same_to_the_bit(bundle: Bundle, tmp_path: Path, training: dict[str, Any]) -> None:
    sent = []
    for pull in (0.0, 0.1):
        with closing(Store(tmp_path / f"{pull}.db")) as store:
            bench = bench_of(bundle, store, personal=pull, device="cpu", **training)
            sent.append([turn(bench, version).body for version in (0, 1, 1, 2)])
    assert sent[0] == sent[1]


def test_what_is_sent_is_the_same_where_a_head_is_local(with_locals: Bundle, tmp_path: Path) -> None:
    sent, kept = [], []
    for pull in (0.0, 0.1):
        with closing(Store(tmp_path / f"{pull}.db")) as store:
            bench = bench_of(with_locals, store, personal=pull)
            sent.append([turn(bench, version).body for version in range(3)])
            kept.append(bench._local)
    assert sent[0] == sent[1]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert not np.array_equal(own(bench).local, kept[1]), "the personal model has a head of its own"


def test_it_takes_as_many_steps_as_the_run_before_it(bundle: Bundle, store: Store) -> None:
    bench = bench_of(bundle, store, personal=0.1)
    turn(bench)
    gate = Open(10)
    bench.train_personal(released(bench), 7, gate)
    assert gate.left == 3


def test_nothing_is_there_where_it_is_off(bundle: Bundle, store: Store) -> None:
    bench = bench_of(bundle, store)
    turn(bench)
    bench.keep(released(bench))
    assert not bench.personal.is_on
    assert bench.personal.model is None
    assert store.vector("personal", bundle.digest) is None
    assert not served(bench).personal


def test_it_is_served_where_it_is_better_here(bundle: Bundle, store: Store) -> None:
    bench = bench_of(bundle, store, personal=0.1)
    turn(bench)
    assert bench.personal.score is not None
    assert bench.global_score is not None
    assert bench.personal.score < bench.global_score, "rmse: trained here, beside the first parameters"
    assert served(bench) is own(bench)
    assert served(bench).name == "the personal model of version 0"
    bench.adopt(released(bench, 1))
    assert served(bench).personal, "the released version did not become better"


@pytest.mark.parametrize(
    ("global_score", "personal_score", "taken"),
    [(0.8, 0.9, True), (0.8, 0.7, False), (0.8, 0.8, True), (None, None, False), (0.8, float("nan"), False)],
)
def test_one_that_is_worse_is_not_served_and_of_two_alike_it_is(
    global_score: float | None, personal_score: float | None, *, taken: bool
) -> None:
    serving = Serving()
    serving.offer(Served(1, W, NOTHING, global_score), ACCURACY)
    serving.offer(Served(1, V, NOTHING, personal_score, personal=True), ACCURACY)
    assert serving.shown()["served_personal"] == taken
    serving.offer(Served(2, W, NOTHING, personal_score), ACCURACY)
    assert serving.shown()["served_personal"] == taken, "a later version with the same score changes nothing"
    serving.offer(Served(3, W, NOTHING, 0.95), ACCURACY)
    assert not serving.shown()["served_personal"]


def test_what_is_pinned_stays(bundle: Bundle, store: Store) -> None:
    bench = bench_of(bundle, store, personal=0.1)
    bench.adopt(released(bench))
    bench.serving.pin()
    turn(bench)
    assert not served(bench).personal
    bench.serving.unpin()
    turn(bench)
    assert bench.serving.pin() == "the personal model of version 0 is served until it is unpinned"


# -- through restarts ------------------------------------------------------------------------------------------------


def test_it_outlives_a_restart(with_locals: Bundle, store: Store) -> None:
    before = bench_of(with_locals, store, personal=0.1)
    turn(before)
    before.keep(released(before))
    after = bench_of(with_locals, store, personal=0.1)
    after.adopt(released(after))
    for kept, was in ((own(after), own(before)), (served(after), served(before))):
        np.testing.assert_array_equal(kept.parameters, was.parameters)
        np.testing.assert_array_equal(kept.local, was.local)
        assert (kept.version, kept.personal, kept.score) == (0, True, was.score)


def test_a_run_that_begins_anew_begins_it_anew(bundle: Bundle, store: Store) -> None:
    before = bench_of(bundle, store, personal=0.1)
    turn(before)
    first = own(before).parameters
    turn(before, 1)
    before.keep(released(before, 1))
    after = bench_of(bundle, store, personal=0.1)
    after.adopt(released(after, run="cd" * 8))
    assert after.personal.model is None
    turn(after, run="cd" * 8)
    np.testing.assert_array_equal(own(after).parameters, first)


@pytest.mark.parametrize("pinned", [False, True])
def test_turned_off_it_is_served_no_longer_unless_somebody_pinned_it(
    bundle: Bundle, store: Store, *, pinned: bool
) -> None:
    before = bench_of(bundle, store, personal=0.1)
    turn(before)
    store.put_pinned(RUN, pinned=pinned)
    before.keep(released(before))
    after = bench_of(bundle, store)
    after.adopt(released(after))
    assert served(after).personal is pinned


def test_data_that_has_changed_judges_it_anew(bundle: Bundle, store: Store) -> None:
    bench = bench_of(bundle, store, personal=0.1)
    turn(bench)
    right = bench.personal.score
    bench.personal.model = msgspec.structs.replace(own(bench), score=0.0)
    bench.read_again()
    assert bench.personal.score == right


# -- the whole node --------------------------------------------------------------------------------------------------


def test_the_status_has_its_score_and_it_goes_on_after_a_restart(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running(personal=0.1, steps_per_update=20) as daemon:
        joined(beside, bundle)
        beside.next_update()
        status = until(daemon, lambda status: status.served_personal)
        assert status.served_score == status.personal_score
    with running(personal=0.1, enabled=False) as again:
        kept = until(again, lambda status: status.personal_score)
        assert (kept.personal_score, kept.served_personal) == (status.personal_score, True)


def test_it_outlives_kill_9(tmp_path: Path, bundle: Bundle) -> None:
    with closing(Store(tmp_path / "state" / "node.sqlite")) as store:
        store.put_bundle(bundle.digest, bundle.data)
        scale = normalisation(load(bundle.manifest.data, data_of(3, 5, 8), tmp_path).sums)
        store.put_vector("global", StoredVector(bundle.digest, RUN, 0, bundle.initial_parameters(), scale))
    eager = "import node_app.learner; node_app.learner.KEEP_EVERY_S = 0.0"
    training = "personal = 0.1\nsteps_per_update = 20"
    with NodeProcess(tmp_path, broker_table("press-07"), training=training, prelude=eager) as node:
        node.hears("READY=1")
        told = asked(tmp_path, lambda status: status["personal_score"] and status["state"] != "learning for itself")
        node.kill()
    with NodeProcess(tmp_path, broker_table("press-07"), training=f"{training}\nenabled = false") as again:
        again.hears("READY=1")
        kept = asked(tmp_path, lambda status: status["personal_score"])
    assert (kept["personal_score"], kept["served_score"]) == (told["personal_score"], told["served_score"])


def asked(folder: Path, until_it: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The status that the process in `folder` comes to have."""
    deadline = time.monotonic() + PATIENCE_S
    with ControlClient(folder / "node.sock") as client:
        while not until_it(status := client.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
    return dict(status)
