"""A gateway that was away sends one fresh update that holds all it has trained, and not one for every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.sensors.statistics import normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import LocalResult
from fieldfold.wire.messages import ClientUpdate, unpack
from node_app import bench as bench_module
from node_app.bench import Bench
from node_app.config import CodecConfig, NodeConfig, TrainingConfig
from node_app.follow import Model
from node_app.store import Parcel, Store
from tests.identities import link_config
from tests.node_app.beside import Beside
from tests.node_app.running import Running, joined, says, until
from tests.node_app.turbofan import data_of

RUN = "ab" * 8
STEPS = 5


class Open:
    """A gate that lets everything pass."""

    def passes(self, wait_s: float) -> bool:
        return wait_s < 1

    def stepped(self, step: int, of: int, loss: float) -> None:
        assert step <= of
        assert np.isfinite(loss)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "node.sqlite")) as opened:
        yield opened


@pytest.fixture
def bench(bundle: Bundle, store: Store) -> Bench:
    config = NodeConfig(
        name="press-07",
        federation="plant",
        broker=link_config("press-07"),
        data=data_of(3, 5, 8),
        training=TrainingConfig(steps_per_update=STEPS),
        codec=CodecConfig("frugal"),
    )
    return Bench(bundle, config, Path(), store)


def model(bench: Bench, version: int = 0) -> Model:
    return Model(RUN, version, bench.bundle.initial_parameters(), normalisation(bench.sums))


def turn(bench: Bench, version: int = 0) -> tuple[Parcel, LocalResult]:
    bench.adopt(model(bench, version))
    result = bench.train(model(bench, version), Open())
    assert result is not None
    return bench.hand_in(model(bench, version), result), result


@pytest.mark.parametrize("versions", [(0, 0, 0), (0, 0, 7)], ids=["same base", "newer base"])
def test_runs_that_nothing_has_left_of_become_one_update_that_holds_them_all(
    bench: Bench, store: Store, versions: tuple[int, ...]
) -> None:
    results = [turn(bench, version)[1] for version in versions]
    (parcel,) = store.parcels()
    update = unpack(ClientUpdate, parcel.body)
    assert (update.base_version, update.num_steps) == (versions[-1], 3 * STEPS)
    store.take_back(RUN)
    unsent = store.unsent(RUN)
    assert unsent is not None
    trained = np.sum([result.delta for result in results], axis=0)
    kept = bench.bundle.manifest.layout.num_trained
    np.testing.assert_allclose(unsent.feedback.residual[:kept], trained[:kept], atol=1e-6)


def test_a_run_goes_on_where_the_one_before_it_ended(bench: Bench) -> None:
    first, second = turn(bench)[1], turn(bench)[1]
    assert second.train_loss < first.train_loss


def test_an_update_that_has_begun_to_leave_stays_and_the_next_begins_from_the_model(
    bench: Bench, store: Store
) -> None:
    first, _ = turn(bench)
    store.depart(first.sequence)
    second, _ = turn(bench, 1)
    assert [parcel.sequence for parcel in store.parcels()] == [first.sequence, second.sequence]
    assert unpack(ClientUpdate, second.body).num_steps == STEPS


def test_one_update_holds_so_many_runs_from_one_version_and_no_more(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "RUNS_AHEAD", 2)
    turn(bench)
    assert not bench.is_far_ahead(model(bench))
    parcel, _ = turn(bench)
    assert bench.is_far_ahead(model(bench))
    assert not bench.is_far_ahead(model(bench, 1)), "a newer version is always worth a run"
    store.depart(parcel.sequence)
    assert not bench.is_far_ahead(model(bench))


def test_without_a_broker_it_trains_on_and_what_waits_is_one_update(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    with running(wait_for_version_s=0.05) as daemon:
        joined(beside, bundle)
        beside.next_update()
        broker.stop()
        status = says(daemon, "waiting for the broker")
        assert not status.connected
        assert status.link == "down: the broker is down"
        assert status.outbox == 2, "one is under way, the other holds the runs since"
        broker.start()
        _, update = beside.next_update()
        assert update.num_steps == bench_module.RUNS_AHEAD * bundle.manifest.local_steps
        assert update.base_version == 0


def test_back_after_a_week_it_sends_one_update_against_the_newest_version(
    running: Running, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon:
        joined(beside, bundle)
        beside.receipt(beside.next_update())
        until(daemon, lambda status: not status.outbox)
        link = daemon._link
        assert isinstance(link, MemoryLink)
        link.stop()
        daemon._resume("somebody")
        until(daemon, lambda status: status.outbox == 1 and status.state == "waiting for a newer version")
        for _ in range(4):
            beside.release()
        link.start()
        _, update = beside.next_update()
        assert update.base_version > 0, "it was held back until the newest version was known"
        assert update.num_steps == 2 * bundle.manifest.local_steps, "and what was trained before is in it"
        until(daemon, lambda status: status.version == 4)


def test_paused_it_sends_what_waited_as_it_is(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon:
        joined(beside, bundle)
        beside.receipt(beside.next_update())
        until(daemon, lambda status: not status.outbox)
        broker.stop()
        daemon._resume("somebody")
        until(daemon, lambda status: status.outbox == 1 and status.state == "waiting for a newer version")
        daemon._pause("somebody")
        broker.start()
        beside.release()
        assert beside.next_update()[1].base_version == 0
