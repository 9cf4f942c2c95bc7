"""The past is dropped by age and size, a little at a time; what is needed to go on stays, and so does its proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from aggregator.config import AggregatorConfig
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.history import audit
from aggregator.history.refold import refold
from aggregator.ledger import retention as retention_module
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Place
from aggregator.ledger.retention import DAY_S, STEADY_S, Retention, RetentionConfig, SteadyClock, new_floor
from aggregator.past import released
from fieldfold.errors import StoreError
from tests.aggregator.histories import live_through
from tests.aggregator.running import RunningAggregator, eventually
from tests.aggregator.tiny import OTHER_RUN, Plant, bundle, config, update

TASK = bundle().digest
UPDATES_A_DAY = 12
DELTAS_KEPT = 6


class Clock:
    """time.time, to be moved."""

    def __init__(self) -> None:
        self.now_s = 1000 * DAY_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


def days_of(path: Path, clock: Clock, method: AnyMethod, days: int = 5) -> Plant:
    plant = Plant(path, method, snapshot_every=3)
    for day in range(days):
        live_through(plant, UPDATES_A_DAY, seed=day)
        clock.now_s += DAY_S
    return plant


def keep(plant: Plant, clock: Clock, **limits: float) -> None:
    """Drops until there is nothing more to drop."""
    retention = Retention(msgspec.convert(limits, RetentionConfig), plant.ledger, DELTAS_KEPT)
    retention.step(clock.now_s - STEADY_S, 0.0)
    while retention.step(clock.now_s, STEADY_S):
        pass


def finding(plant: Plant) -> audit.Finding:
    return audit.verify(plant.ledger, TASK, lambda _: None)


METHODS: dict[str, AnyMethod] = {"fedbuff": FedBuff(buffer_size=2), "fedasync": FedAsync()}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_by_age(tmp_path: Path, clock: Clock, method: AnyMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "ROWS_A_STEP", 5)
    whole = days_of(tmp_path / "whole.sqlite", Clock(), method)
    plant = days_of(tmp_path / "ledger.sqlite", clock, method)
    keep(plant, clock, max_age_days=2.5)

    floor = plant.ledger.floor(TASK)
    assert 2 * UPDATES_A_DAY < floor.contribution < 3 * UPDATES_A_DAY + 4, "the first checkpoint of the third day"
    bodies = plant.ledger._rows("SELECT id FROM contribution WHERE body NOT NULL ORDER BY id")
    assert bodies[0] == (floor.contribution + 1,)
    assert len(bodies) == 5 * UPDATES_A_DAY - floor.contribution
    [(oldest,)] = plant.ledger._rows("SELECT min(version) FROM version WHERE length(delta)")
    assert oldest == floor.version - DELTAS_KEPT + 1

    checked = finding(plant)
    assert checked.difference is None
    assert (checked.from_version, checked.to_version) == (floor.version, plant.model.version)
    plant.crash()
    for each in (plant, whole):
        live_through(each, 10, seed=99)
    assert plant.model.exact.tobytes() == whole.model.exact.tobytes()
    assert plant.digests() == whole.digests(), "the digests of all versions stay"
    plant.ledger.close()
    whole.ledger.close()


def test_what_lies_before_cannot_be_asked_for_and_what_lies_behind_can(tmp_path: Path, clock: Clock) -> None:
    plant = days_of(tmp_path / "ledger.sqlite", clock, METHODS["fedbuff"])
    keep(plant, clock, max_age_days=2.5)
    floor = plant.ledger.floor(TASK)
    with pytest.raises(
        StoreError, match=rf"not kept any more; updates and deltas before version {floor.version} were"
    ):
        released(plant.ledger, bundle(), 1)
    assert released(plant.ledger, bundle(), floor.version).size
    with pytest.raises(StoreError, match="not kept any more"):
        refold(
            plant.ledger, tmp_path / "branch", OTHER_RUN, without=["press-1"], from_version=0, progress=lambda _: None
        )
    branch = refold(
        plant.ledger,
        tmp_path / "branch",
        OTHER_RUN,
        without=["press-1"],
        from_version=floor.version + 1,
        progress=lambda _: None,
    )
    assert branch.left_out > 0
    ledger = Ledger.existing(tmp_path / "branch")
    assert ledger.floor(TASK).version == floor.version + 1
    checked = audit.verify(ledger, TASK, lambda _: None)
    assert (checked.difference, checked.from_version) == (None, floor.version + 1)
    ledger.close()
    plant.ledger.close()


def test_by_size_and_the_file_becomes_smaller(tmp_path: Path, clock: Clock) -> None:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1), snapshot_every=3)
    for day in range(10):
        live_through(plant, 3, seed=day)
        noise = np.random.default_rng(day).bytes(100_000)
        plant.ledger._rows(
            "UPDATE contribution SET body = CAST(body || ? AS BLOB) WHERE id % 3 = 1 AND length(body) < 1000",
            (noise,),
        )
        clock.now_s += DAY_S
    full_bytes = plant.ledger.used_bytes()
    assert full_bytes > 1_000_000
    keep(plant, clock, max_age_days=0, max_size_bytes=2_000_000)
    assert plant.ledger.floor(TASK) == Place()
    keep(plant, clock, max_age_days=0, max_size_bytes=550_000)
    assert plant.ledger.used_bytes() <= 550_000
    first = plant.ledger.floor(TASK)
    assert 0 < first.version < plant.model.version - 2
    keep(plant, clock, max_age_days=0, max_size_bytes=1)
    assert plant.ledger.floor(TASK).contribution < plant.model.contribution, "the newest two checkpoints stay"
    plant.crash()
    assert plant.model.version == 30
    plant.ledger.close()
    assert plant.path.stat().st_size < full_bytes / 2


def test_repeated_updates_whose_decision_is_dropped_are_not_folded_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "DECISIONS_KEPT", 8)
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1))
    sent = []
    for sequence in range(1, 13):
        sent.append(update(sequence=sequence, base_version=plant.model.version))
        plant.send(sent[-1])
        plant.fold()
    plant.send(update(sequence=13, base_version=plant.model.version, num_steps=0))
    counts, version = plant.ledger.counts(), plant.model.version
    clock.now_s += DAY_S
    keep(plant, clock, max_age_days=0.5)
    [(rows,)] = plant.ledger._rows("SELECT count(*) FROM contribution")
    assert rows == 8
    assert plant.ledger.counts() == counts
    assert plant.ledger.next_sequence("press-1") == 14
    again = [plant.send(one).receipt for one in (sent[0], sent[4], sent[11])]
    plant.fold()
    assert [(receipt.decision, receipt.code) for receipt in again] == [
        ("rejected", "sequence_used"),
        ("rejected", "sequence_used"),
        ("accepted", None),
    ]
    assert plant.model.version == version
    plant.crash()
    assert finding(plant).difference is None
    plant.ledger.close()


def test_a_method_that_looks_back_refuses_what_it_cannot_look_back_to(tmp_path: Path, clock: Clock) -> None:
    """The limits may have been lower when the deltas were dropped than they are now."""
    plant = days_of(tmp_path / "ledger.sqlite", clock, FedAsync())
    keep(plant, clock, max_age_days=2.5)
    plant.crash()
    oldest = plant.ledger.oldest_base(TASK)
    assert oldest > 0
    for base, decision in ((oldest - 1, "rejected"), (oldest, "accepted")):
        receipt = plant.send(update("press-9", base + 1, base_version=base)).receipt
        assert receipt.decision == decision, base
    plant.fold()
    plant.ledger.close()


CHECKPOINTS = [(Place(version, 2 * version), float(version)) for version in (0, 10, 20, 30)]


@pytest.mark.parametrize(
    ("floor", "older_than_s", "too_large", "expected"),
    [
        (0, None, False, 0),
        (0, 9.0, False, 0),
        (0, 10.0, False, 10),
        (0, 25.0, True, 20),
        (0, 99.0, False, 20),
        (0, None, True, 10),
        (10, None, True, 20),
        (20, None, True, 20),
        (20, 15.0, False, 20),
    ],
)
def test_the_floor_rises_to_a_checkpoint_but_never_to_the_newest(
    floor: int, older_than_s: float | None, expected: int, *, too_large: bool
) -> None:
    found = new_floor(Place(floor, 2 * floor), CHECKPOINTS, older_than_s=older_than_s, too_large=too_large)
    assert found.version == expected


def test_no_age_is_told_by_a_clock_that_jumps() -> None:
    wall, steady = SteadyClock(), []
    for running_s, jumped_s in ((0, 0), (3599, 5), (3600, 5), (3660, 1e9), (7000, 1e9), (7260, 1e9), (7300, 0)):
        steady.append(wall.is_steady(1e9 + running_s + jumped_s, running_s))
    assert steady == [False, False, True, False, False, True, False]


def test_a_running_aggregator_keeps_within_its_limits(
    start: Callable[[AggregatorConfig], RunningAggregator],
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention_module, "STEADY_S", 0.0)
    plant = days_of(tmp_path / "state" / "ledger.sqlite", clock, FedBuff(buffer_size=2))
    plant.ledger.close()
    limits = RetentionConfig(max_age_days=1.5)
    aggregator = start(msgspec.structs.replace(config(FedBuff(buffer_size=2)), retention=limits))
    eventually(lambda: aggregator.within(lambda: aggregator.service._ledger.floor(TASK).version > 0))
    assert aggregator.status.state == "folding"
