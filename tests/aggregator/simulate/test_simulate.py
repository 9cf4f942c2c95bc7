"""Whole simulations: real training of the turbofan task on a few nodes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from aggregator.fold.ace import ACE
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.methods import AnyMethod
from aggregator.fold.rules.coordinate_wise import CoordinateMedian
from aggregator.simulate import report
from aggregator.simulate.command import simulate
from aggregator.simulate.run import Outcome, Point, Simulation
from aggregator.simulate.scenario import AttackConfig, AvailabilityConfig, LinkConfig, MethodConfig, Scenario, load
from aggregator.simulate.workers import Workers
from fieldfold.errors import FieldfoldError, StoreError

EXAMPLE = Path(__file__).parents[3] / "examples/turbofan"
SCENARIO = msgspec.structs.replace(
    load(EXAMPLE / "scenario.toml"), nodes=6, until_s=40.0, seeds=(0,), link=LinkConfig(), steps=4
)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(SCENARIO, EXAMPLE, processes=1) as running:
        yield running


def outcome(workers: Workers, fold: AnyMethod, seed: int = 0, **changes: object) -> Outcome:
    scenario: Scenario = msgspec.structs.replace(SCENARIO, **changes)
    before, workers.scenario = workers.scenario, scenario
    try:
        return Simulation(MethodConfig("method", fold), seed, workers).run(lambda _now_s, _updates: None)
    finally:
        workers.scenario = before


def test_the_same_seed_gives_the_same_run_to_the_last_digit(workers: Workers) -> None:
    method = FedBuff(buffer_size=3, server_learning_rate=0.5)
    first, again, other = (outcome(workers, method, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.points != other.points


def test_it_learns_and_time_passes_only_virtually(workers: Workers) -> None:
    found = outcome(workers, FedBuff(buffer_size=3, server_learning_rate=0.5))
    scores = [point.overall for point in found.points]
    assert min(scores) < 0.8 * scores[0]
    assert found.updates > 60
    assert found.versions == found.updates // 3
    assert 0 < found.bytes_up < found.float32_bytes / 20
    assert [point.at_s for point in found.points][:3] == [0, 5, 10]


def test_who_waits_for_all_makes_one_version_while_the_slowest_makes_one_update(workers: Workers) -> None:
    found = outcome(workers, FedAvg(clients_per_round=6), until_s=150.0)
    hurried = outcome(workers, FedAvg(clients_per_round=3), until_s=150.0)
    assert 0 < found.versions < hurried.versions
    assert hurried.stale > 0


def test_methods_that_need_more_than_the_delta_run_too(workers: Workers) -> None:
    for method in (FedAsync(alpha=0.1), ACE(buffer_size=3, start=3, rule=CoordinateMedian())):
        found = outcome(workers, method, until_s=15.0)
        assert found.versions > 0


def test_a_slow_link_delays_what_is_sent(workers: Workers) -> None:
    method = FedBuff(buffer_size=3)
    free = outcome(workers, method)
    narrow = outcome(workers, method, link=LinkConfig(up_kbit_s=2, down_kbit_s=2))
    assert narrow.updates < 0.7 * free.updates


def test_runs_are_lost_and_days_end(workers: Workers) -> None:
    method = FedBuff(buffer_size=3)
    steady = outcome(workers, method)
    lossy = outcome(workers, method, availability=AvailabilityConfig(day_s=20, on_share=0.5, drop_out=0.3, away_s=5))
    assert lossy.lost > 0
    assert lossy.updates < steady.updates


def test_liars_do_harm_and_a_median_bears_it(workers: Workers) -> None:
    attack = AttackConfig("sign-flip", share=0.34)
    plain = outcome(workers, FedBuff(buffer_size=6, server_learning_rate=0.5), attack=attack)
    robust = outcome(
        workers, FedBuff(buffer_size=6, server_learning_rate=0.5, rule=CoordinateMedian()), attack=attack
    )
    assert robust.points[-1].overall < plain.points[-1].overall


@pytest.mark.parametrize("kind", ["noise", "label-flip", "alie", "min-max", "mimic-slow", "mimic-fast"])
def test_every_attack_can_be_run(workers: Workers, kind: str) -> None:
    found = outcome(
        workers, FedBuff(buffer_size=3), until_s=8.0, attack=msgspec.convert({"kind": kind}, AttackConfig)
    )
    assert found.updates > 0


def point(at_s: float, score: float) -> Point:
    return Point(at_s, int(10 * at_s), int(at_s), score, None)


def test_a_target_is_reached_when_three_scores_in_a_row_reach_it() -> None:
    points = [point(at, score) for at, score in enumerate((9, 4, 9, 4, 3, 3, 2, 2, 2, 2))]
    found = report.summarise(points, "lower", 5.0)
    assert (found.to_target_s, found.updates_to_target, found.final) == (3, 30, 2)
    assert report.summarise(points, "lower", 1.0).to_target_s is None
    assert report.summarise(points, "higher", 9.0).to_target_s is None


def test_results_are_kept_and_those_of_another_scenario_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    run = Outcome("fedbuff", 0, (point(0, 1.0),), 1, 1, 0, 0, 0, 10, 10, 100, 5.0)
    assert report.read(path, "this") == []
    report.write(path, "this", [run])
    assert report.read(path, "this") == [run]
    with pytest.raises(StoreError, match="another scenario"):
        report.read(path, "that")
    path.write_text("no results\n")
    with pytest.raises(StoreError, match="holds no results"):
        report.read(path, "this")


def scenario_file(folder: Path) -> Path:
    text = (EXAMPLE / "scenario.toml").read_text(encoding="utf-8")
    text = text.replace("seeds = [0, 1, 2]", "seeds = [0]").replace("until_s = 600", "until_s = 10")
    head, *methods = text.replace('"data/', f'"{EXAMPLE}/data/').split("[[methods]]")
    path = folder / "scenario.toml"
    head = head.replace('"turbofan.bundle"', f'"{EXAMPLE}/turbofan.bundle"')
    path.write_text("[[methods]]".join([head, *methods[:2]]), encoding="utf-8")
    return path


def test_the_command_prints_a_table_draws_a_picture_and_runs_nothing_twice(tmp_path: Path) -> None:
    path = scenario_file(tmp_path)
    first = CliRunner().invoke(simulate, [str(path), "--png", str(tmp_path / "out.png"), "--processes", "1"])
    assert first.exit_code == 0, first.output
    head, *rows = first.stdout.splitlines()
    assert head.split()[:5] == ["method", "runs", "time", "to", "14.5"]
    assert [row.split()[0] for row in rows] == ["rate-corrected-fedbuff", "fedbuff"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(simulate, [str(path)])
    assert again.stdout == first.stdout
    assert "seed" in first.stderr
    assert "seed" not in again.stderr
    path.write_text(path.read_text(encoding="utf-8").replace("seeds = [0]", "seeds = [0, 1]"), encoding="utf-8")
    more = CliRunner().invoke(simulate, [str(path)])
    assert "fedbuff, seed 1" in more.stderr
    assert "seed 0" not in more.stderr


def test_no_process_outlives_a_command_that_was_killed(tmp_path: Path) -> None:
    arguments = ["aggregator", "simulate", str(scenario_file(tmp_path)), "--processes", "2"]
    command = subprocess.Popen([sys.executable, "-m", "fieldfold", *arguments], stderr=subprocess.PIPE)
    assert command.stderr is not None
    command.stderr.readline()  # the first run has begun, and its two processes are started
    until(lambda: len(children(command.pid)) >= 2)
    family = children(command.pid)
    command.kill()
    command.communicate()
    until(lambda: not any(map(lives, family)))


def until(over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not over():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(parent: int) -> list[int]:
    lists = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text(encoding="ascii").split()]


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_data_that_does_not_suit_is_said_before_anything_runs(tmp_path: Path) -> None:
    path = scenario_file(tmp_path)
    path.write_text(path.read_text().replace("train_FD001", "nothing"), encoding="utf-8")
    result = CliRunner().invoke(simulate, [str(path)])
    assert isinstance(result.exception, FieldfoldError)
    assert "nothing.txt.gz" in str(result.exception)
