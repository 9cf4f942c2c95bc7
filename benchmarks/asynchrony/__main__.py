"""Every method on the same fleets: how fast, how fair to the slow, how hard to lead astray.

    python -m benchmarks.asynchrony --parts speed --seeds 2

Real training in the simulator (docs/METHODS.md), under the scenarios beside this file. What is finished is kept under
.cache/benchmarks/asynchrony, so that an interrupted call goes on; `--fresh` begins anew. MNIST and the hospitals are
not kept here: their rows are left out unless --mnist and --heart name them (see benchmarks/data/SOURCE.txt).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aggregator.simulate import scenario as scenarios
from aggregator.simulate.comparison import Comparison, compare
from aggregator.simulate.scenario import AttackConfig, AttackKind, Scenario
from benchmarks.asynchrony import grid, prepare, tables

SCENARIOS = Path(__file__).parent / "scenarios"
PARTS = ("grid", "speed", "fairness", "attacks", "voters")
SLOWER_BY = (10, 50)
ATTACKS: tuple[AttackKind, ...] = ("sign-flip", "noise", "label-flip", "alie", "min-max", "mimic-slow", "mimic-fast")
VOTED, VOTERS = "auto", 0.2
"""The method that heeds what nodes say of their losses, and how many of them lie about it."""
VOTES = {
    "honest": AttackConfig(),
    "low": AttackConfig(voters=VOTERS, vote="low"),
    "high": AttackConfig(voters=VOTERS, vote="high"),
}
WANTED = {"faster_than_all": 10.0, "faster_than_over": 4.0, "slow_only_share_of_pooled": 0.9}


class Bench:
    """Runs scenarios with so many seeds."""

    def __init__(self, seeds: int, processes: int | None, *, fresh: bool) -> None:
        self._seeds, self._processes, self._fresh = seeds, processes, fresh

    def run(self, name: str, attack: AttackConfig | None = None) -> tuple[Scenario, Comparison]:
        """One scenario, with an attack in place of its own."""
        loaded = scenarios.load(SCENARIOS / f"{name}.toml")
        heeds_votes = [method for method in loaded.methods if method.name == VOTED]
        methods = tuple(heeds_votes) if attack and attack.voters else loaded.methods
        wanted = msgspec.structs.replace(
            loaded, seeds=loaded.seeds[: self._seeds], attack=attack or loaded.attack, methods=methods
        )
        label = name if attack is None else f"{name}-{attack.kind}-{attack.who}-{attack.voters:g}-{attack.vote}"
        return wanted, self.compared(wanted, label)

    def compared(self, wanted: Scenario, label: str) -> Comparison:
        """What comes of a scenario; what is finished of it is kept under this name."""
        results = prepare.FOLDER / f"{label}.jsonl"
        if self._fresh:
            results.unlink(missing_ok=True)
        sys.stderr.write(f"{label}\n")
        return compare(wanted, SCENARIOS, results, self._processes, sys.stderr)


def tuned(bench: Bench, task: str) -> list[grid.Tried]:
    """Prints what each rate comes to, on the first half of the time."""
    wanted, rounds = (scenarios.load(SCENARIOS / f"{task}-{kind}.toml") for kind in ("slow", "rounds"))
    every = msgspec.structs.replace(wanted, methods=rounds.methods + wanted.methods)
    outcomes, metric = bench.compared(grid.widened(every), f"{task}-grid")
    target = wanted.target or 0.0
    rows = grid.tried(outcomes, metric, target)
    print(f"\n{task}: seconds to {target:g}, and {metric.name} at the end, at each rate; seed {grid.SEED}")
    print(f"{'method':<14}", *(f"{rate:>16g}" for rate in grid.RATES))
    for name in dict.fromkeys(row.method for row in rows):
        cells = [(row.to_target_s, row.final) for row in rows if row.method == name]
        print(f"{name:<14}", *(f"{'never' if at is None else f'{at:.0f} s':>8} {end:>7.4g}" for at, end in cells))
    return rows


def speed(bench: Bench, task: str) -> list[tables.Speed]:
    """Prints the table of a task."""
    wanted, (slow, metric) = bench.run(f"{task}-slow")
    _, (rounds, _) = bench.run(f"{task}-rounds")
    _, (even, _) = bench.run(f"{task}-even")
    target = wanted.target or 0.0
    rows = tables.speeds(rounds + slow, even, metric, target)
    print(f"\n{task}: {metric.name}, target {target:g}, {len(wanted.seeds)} seeds")
    print("method          to target  slowest  than FedAvg  than first 77 %    final    worst  beside even FedAvg")
    for row in rows:
        print(
            f"{row.method:<14}  {_seconds(row.to_target_s):>9}  {_seconds(row.slowest_s):>7}",
            f"{_times(row.faster_than_all):>11}  {_times(row.faster_than_over):>15}",
            f"{row.final:>7.4g}  {row.worst:>7.4g}  {row.behind:>+18.3g}",
            sep="  ",
        )
    return rows


def fairness(bench: Bench) -> dict[str, list[tables.Fairness]]:
    """Prints the table of what only slow nodes know, and what one node with all data knows of it."""
    pooled, metric = bench.run("digits-pooled")[1]
    found = {}
    for times in SLOWER_BY:
        _, (outcomes, metric) = bench.run(f"digits-alone-{times}")
        found[str(times)] = rows = tables.fairness([*outcomes, *pooled], metric)
        print(f"\ntwo classes held by the slowest fifth alone, {times} times slower")
        print("method            all    slow only   worst")
        for row in rows:
            print(f"{row.method:<14}  {row.overall:.3f}  {row.slow_only:>9.3f}  {row.slow_only_worst:>7.3f}")
    return found


def attacks(bench: Bench) -> list[tables.Robustness]:
    """Prints the table of attacks."""
    _, (clean, metric) = bench.run("digits-unattacked", AttackConfig())
    cells = {name: bench.run("digits-attacked", attack)[1].outcomes for name, attack in _attacks(AttackConfig())}
    rows = tables.robustness(clean, cells, metric)
    print("\n30 % attackers, five times faster than they would be; median, and worst seed")
    print(" " * 20, *(f"{row.method:>14}" for row in rows))
    print(f"{'nobody':<20}", *(f"{row.clean:>14.3f}" for row in rows))
    print(f"{'nobody, the mean':<20}", *(f"{row.mean:>14.3f}" for row in rows))
    for cell in cells:
        print(f"{cell:<20}", *(f"{row.cells[cell]:>7.3f} {row.worst[cell]:>6.3f}" for row in rows))
    print(f"{'points lost, mean':<20}", *(f"{row.mean_loss:>14.1f}" for row in rows))
    print(f"{'points lost, worst':<20}", *(f"{row.worst_loss:>14.1f}" for row in rows))
    return rows


def voters(bench: Bench) -> dict[str, dict[str, float]]:
    """Prints what becomes of `auto` when a fifth of the fleet lies about its losses, besides what attackers do."""
    found: dict[str, dict[str, float]] = {}
    for vote, lying in VOTES.items():
        runs = {"nobody": bench.run("digits-unattacked", lying)[1]}
        runs |= {name: bench.run("digits-attacked", attack)[1] for name, attack in _attacks(lying)}
        finals = {name: tables.finals(*each)[VOTED] for name, each in runs.items()}
        found[vote] = {name: statistics.median(scores) for name, scores in finals.items()}
    print(f"\n{VOTED}, where {VOTERS:.0%} of the fleet say of every model that their loss is low, or high")
    print(" " * 20, *(f"{vote:>8}" for vote in found))
    for name in found["honest"]:
        print(f"{name:<20}", *(f"{scores[name]:>8.3f}" for scores in found.values()))
    return found


def _attacks(lying: AttackConfig) -> Iterator[tuple[str, AttackConfig]]:
    for kind in ATTACKS:
        for who in ("random", "fastest"):
            yield f"{kind} {who}", msgspec.structs.replace(lying, kind=kind, who=who, speed_up=5.0)


def _tasks(mnist: Path | None, heart: Path | None) -> list[str]:
    """Those that there is data for, made ready."""
    tasks = ["digits", "turbofan"]
    prepare.turbofan()
    if mnist:
        prepare.mnist(mnist)
        tasks.append("mnist")
    if heart:
        prepare.heart(heart)
        tasks.append("heart")
    return tasks


def _seconds(time_s: float | None) -> str:
    return "never" if time_s is None else f"{time_s:.0f} s"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f} x"


def main() -> None:
    """Prints the tables and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asynchrony",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[1:4])
    parser.add_argument("--seeds", type=int, choices=range(1, 6), default=5, help="of the five in the scenarios")
    parser.add_argument("--mnist", type=Path, help="mnist_5k.csv.gz")
    parser.add_argument("--heart", type=Path, help="folder with processed.cleveland.data and its three neighbours")
    parser.add_argument("--jobs", type=int, help="processes that train at once; one a core otherwise")
    parser.add_argument("--fresh", action="store_true", help="runs again what is finished")
    options = parser.parse_args()
    bench = Bench(options.seeds, options.jobs, fresh=options.fresh)
    prepare.digits()
    result: dict[str, object] = {"benchmark": "asynchrony", "seeds": options.seeds, "wanted": WANTED}
    if {"grid", "speed"} & set(options.parts):
        tasks = _tasks(options.mnist, options.heart)
        for part, row_of in (("grid", tuned), ("speed", speed)):
            if part in options.parts:
                result[part] = {task: row_of(bench, task) for task in tasks}
    if "fairness" in options.parts:
        result["fairness"] = fairness(bench)
    if "attacks" in options.parts:
        result["attacks"] = attacks(bench)
    if "voters" in options.parts:
        result["voters"] = voters(bench)
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
