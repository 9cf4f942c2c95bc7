"""Data that has changed is read again without a restart, and what was read stays until then."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from fieldfold.errors import DataError
from fieldfold.sensors.files import Fingerprint, fingerprint
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import normalisation
from fieldfold.task.bundle import Bundle
from node_app import learner as learner_module
from node_app.bench import Bench
from node_app.config import NodeConfig
from node_app.follow import Model
from node_app.freshness import AT_THE_LATEST_S, Freshness
from node_app.store import Store
from tests.identities import link_config
from tests.node_app.beside import Beside
from tests.node_app.running import Running, joined, until
from tests.node_app.turbofan import data_of

OLD: Fingerprint = (("a.csv", 10, 1),)
NEW: Fingerprint = (("a.csv", 12, 2),)
NEWER: Fingerprint = (("a.csv", 14, 3),)


def test_what_has_not_changed_is_not_read_again() -> None:
    freshness = Freshness(OLD)
    assert not any(freshness.is_worth_reading(OLD, 60.0 * look) for look in range(100))


def test_what_has_changed_is_read_when_it_stands_still() -> None:
    freshness = Freshness(OLD)
    assert [freshness.is_worth_reading(found, 0.0) for found in (NEW, NEWER, NEWER)] == [False, False, True]
    freshness.note_read(NEWER)
    assert not freshness.is_worth_reading(NEWER, 60.0)


def test_a_log_that_never_stands_still_is_read_now_and_then() -> None:
    freshness = Freshness(OLD)
    looks = [freshness.is_worth_reading((("a.csv", 10 + look, look),), 60.0 * look) for look in range(1, 12)]
    assert looks.index(True) == AT_THE_LATEST_S / 60


def test_a_change_that_was_undone_is_none() -> None:
    freshness = Freshness(OLD)
    assert [freshness.is_worth_reading(found, 0.0) for found in (NEW, OLD, NEW)] == [False, False, False]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """A file of the test's own with a few engines' readings."""
    whole = data_of()
    lines = gzip.decompress(Path(whole.files[0]).read_bytes()).decode().splitlines(keepends=True)
    (tmp_path / "readings.txt").write_text("".join(line for line in lines if line.split()[0] in {"3", "5"}))
    (tmp_path / "more.txt").write_text(
        "".join(line for line in lines if line.split()[0] in {"8", "11", "13", "17", "20"})
    )
    return msgspec.structs.replace(whole, files=("readings.txt",))


@pytest.fixture(autouse=True)
def _watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "LOOK_AT_DATA_S", 0.0)


def append(folder: Path) -> None:
    with (folder / "readings.txt").open("a") as file:
        file.write((folder / "more.txt").read_text())


def test_a_fingerprint_tells_every_touch(tmp_path: Path, data: DataConfig) -> None:
    before = fingerprint(data, tmp_path)
    assert fingerprint(data, tmp_path) == before
    os.utime(tmp_path / "readings.txt", (1.0, 1.0))
    touched = fingerprint(data, tmp_path)
    append(tmp_path)
    assert len({before, touched, fingerprint(data, tmp_path)}) == 3
    (tmp_path / "readings.txt").unlink()
    with pytest.raises(DataError, match="matches no file"):
        fingerprint(data, tmp_path)


@pytest.fixture
def bench(bundle: Bundle, tmp_path: Path, data: DataConfig) -> Iterator[Bench]:
    config = NodeConfig("press-07", "plant", link_config("press-07"), data)
    with closing(Store(tmp_path / "node.sqlite")) as store:
        yield Bench(bundle, config, tmp_path, store)


def test_the_models_are_judged_anew_on_it(bench: Bench, tmp_path: Path) -> None:
    model = Model("ab" * 8, 0, bench.bundle.initial_parameters(), normalisation(bench.sums))
    bench.adopt(model)
    before, count = bench.global_score, bench.sums.count[0]
    append(tmp_path)
    assert [bench.data_has_changed(0.0), bench.data_has_changed(1.0)] == [False, True]
    bench.read_again()
    assert bench.adopted is None
    assert bench.serving.served is not None
    assert bench.serving.served.score != before
    assert bench.sums.count[0] > count
    bench.adopt(model)
    assert bench.global_score == bench.serving.served.score
    assert not bench.data_has_changed(2.0)


def test_data_that_is_of_no_use_leaves_what_was_read(bench: Bench, tmp_path: Path) -> None:
    before = bench.report
    (tmp_path / "readings.txt").write_text("3 1 nothing but noise\n")
    with pytest.raises(DataError):
        bench.read_again()
    assert bench.report == before


def test_a_running_node_takes_it_up_and_tells_its_statistics_when_asked(
    running: Running, beside: Beside, bundle: Bundle, tmp_path: Path, data: DataConfig
) -> None:
    with running(data=data, wait_for_version_s=0.1) as daemon:
        joined(beside, bundle)
        beside.next_update()
        before = daemon.status().data
        sums = beside.statistics[-1]
        beside.statistics.clear()
        append(tmp_path)
        status = until(daemon, lambda status: status.data and status.data.rows > before.rows)
        assert status.data.series == before.series + 5
        beside.listen(0.3)
        assert beside.statistics == []
        beside.command("resend_statistics")
        said = beside.until(lambda: beside.statistics)[0]
        assert said.count[0] > sums.count[0]
