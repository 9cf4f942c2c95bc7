"""Does the simulator say what a real fleet does? The same fleets, once simulated and once as processes on a broker.

    python -m benchmarks.prediction

Mosquitto with mutual TLS, an aggregator and twelve gateways, each held to the pace and given the engines that the
simulator drew for it (asynchrony/scenarios/turbofan-broker.toml). Compared is the time from the first update to the
target, since the simulator knows nothing of programs that start. Wanted: the methods in the same order, and each time
within 25 %.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from aggregator.ledger.ledger import Ledger
from aggregator.simulate import scenario as scenarios
from aggregator.simulate.comparison import compare
from aggregator.simulate.fleet import draw
from aggregator.simulate.partition import deal
from aggregator.simulate.report import summarise
from aggregator.simulate.run import Outcome, Point
from aggregator.simulate.scenario import MethodConfig, Scenario
from aggregator.simulate.workers import Data, read
from benchmarks.asynchrony import prepare
from benchmarks.asynchrony.__main__ import SCENARIOS
from examples.turbofan.fleet import Fleet
from fieldfold.task.bundle import Bundle

RUN_FOLDER = Path(".cache/benchmarks/prediction")
SCENARIO = "turbofan-broker"
WITHIN = 0.25
LOOK_EVERY_S = 0.5


class Row(msgspec.Struct, frozen=True):
    """Median seconds to the target, None where it was not reached; and what the real runs were, one a seed."""

    method: str
    simulated_s: float | None
    real_s: float | None
    real: tuple[float | None, ...]

    @property
    def off(self) -> float | None:
        """Simulated less real time, as a share of the real one."""
        if self.simulated_s is None or self.real_s is None:
            return None
        return (self.simulated_s - self.real_s) / self.real_s


def run_for_real(wanted: Scenario, method: MethodConfig, seed: int, data: Data, bundle: Bundle) -> float | None:
    """Seconds from the first update to the target, with the fleet that the simulator draws from this seed."""
    drawn = draw(wanted, seed)
    windows = deal(data.holdings, wanted.partition, drawn.is_slow, bundle.manifest.batch_size, seed)
    names = [f"gateway-{number + 1:02}" for number in range(wanted.nodes)]
    engines = {
        name: tuple((np.unique(data.holdings.series[mine]) + 1).tolist())
        for name, mine in zip(names, windows, strict=True)
    }
    pace = {
        name: bundle.manifest.local_steps / float(update_s)
        for name, update_s in zip(names, drawn.update_s, strict=True)
    }
    fold = "[fold]\n" + "\n".join(
        f"{key} = {msgspec.json.encode(value).decode()}"
        for key, value in msgspec.to_builtins(method.fold).items()
        if not isinstance(value, dict)
    )
    with Fleet(
        RUN_FOLDER, prepare.FOLDER / "turbofan.bundle", engines, pace, fold=fold, profile=wanted.profile, seed=seed
    ) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        for name in names:
            fleet.start_node(name)
        begun_at: float | None = None
        while begun_at is None or time.monotonic() - begun_at < wanted.until_s:
            time.sleep(LOOK_EVERY_S)
            fleet.check_alive()
            status = fleet.aggregator_status()
            if begun_at is None and status is not None and status["version"] is not None:
                begun_at = time.monotonic()
    points = released(RUN_FOLDER / "aggregator" / "state" / "ledger.sqlite", bundle.digest, wanted)
    return summarise(points, bundle.manifest.metrics[0].better, wanted.target).to_target_s


def released(ledger: Path, task: str, wanted: Scenario) -> list[Point]:
    """The score of the newest version that has one, as often as the simulator looks, from the first update on."""
    with contextlib.closing(Ledger.existing(ledger)) as found:
        versions = found.released_lately(task, 100_000)
        first_at = min(update.at for update in found.taken_lately(1_000_000))
    points: list[Point] = []
    for look in range(round(wanted.until_s / wanted.score_every_s)):
        at_s = look * wanted.score_every_s
        known = [each for each in versions if each.at - first_at <= at_s and each.score is not None]
        if known:
            points.append(Point(at_s, 0, known[-1].version, known[-1].score or 0.0, None))
    return points


def simulated_s(run: Outcome, better: str, target: float | None) -> float | None:
    """The same of a simulated run."""
    found = summarise(run.points, better, target).to_target_s
    first_s = next((point.at_s for point in run.points if point.updates), 0.0)
    return None if found is None else found - first_s


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prediction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, choices=(1, 2, 3), default=3)
    seeds = parser.parse_args().seeds
    prepare.turbofan()
    wanted = scenarios.load(SCENARIOS / f"{SCENARIO}.toml")
    wanted = msgspec.structs.replace(wanted, seeds=wanted.seeds[:seeds])
    bundle = Bundle.read(SCENARIOS / wanted.task)
    results = prepare.FOLDER / f"{SCENARIO}.jsonl"
    simulated, metric = compare(wanted, SCENARIOS, results, None, sys.stderr)
    data = read(wanted, bundle, SCENARIOS)
    real: dict[str, list[float | None]] = {method.name: [] for method in wanted.methods}
    for seed in wanted.seeds:
        for method in wanted.methods:
            sys.stderr.write(f"for real: {method.name}, seed {seed}\n")
            real[method.name].append(run_for_real(wanted, method, seed, data, bundle))
    rows = [
        Row(
            name,
            _median([simulated_s(run, metric.better, wanted.target) for run in simulated if run.method == name]),
            _median(times),
            tuple(times),
        )
        for name, times in real.items()
    ]
    print(f"seconds to {metric.name} {wanted.target:g}, medians of {seeds} seeds")
    print("method            simulated  real   off by")
    for row in rows:
        off = "-" if row.off is None else f"{row.off:+.0%}"
        print(f"{row.method:<16}  {_seconds(row.simulated_s):>9}  {_seconds(row.real_s):>4}  {off:>7}")
    order = {
        key: [row.method for row in sorted(rows, key=lambda row: _late(getattr(row, key)))]
        for key in ("simulated_s", "real_s")
    }
    result = {
        "benchmark": "prediction",
        "rows": rows,
        "same_order": order["simulated_s"] == order["real_s"],
        "all_within": all(row.off is not None and abs(row.off) <= WITHIN for row in rows),
        "wanted": {"same_order": True, "within": WITHIN},
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _median(times: list[float | None]) -> float | None:
    middle = statistics.median_high(sorted(map(_late, times)))
    return None if middle == float("inf") else middle


def _late(time_s: float | None) -> float:
    return float("inf") if time_s is None else time_s


def _seconds(time_s: float | None) -> str:
    return "never" if time_s is None else f"{time_s:.0f}"


if __name__ == "__main__":
    main()
