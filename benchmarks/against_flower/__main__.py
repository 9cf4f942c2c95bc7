"""fieldfold and Flower, real processes side by side: what it takes to the same model, and what a fault leaves of a run.

Five gateways, one of which may be ten times slower, learn the turbofan task; the same ONNX Runtime steps in both. A
local run is stretched by sleep, so that two cores do for all. Flower in deployment mode over TLS, once with its FedAvg
of all nodes, once with a timeout for a round, the longest that a round took without a straggler; fieldfold over
Mosquitto with mutual TLS. Time, processor time and bytes count from the first model to the first one at the target,
with fieldfold to the third in a row. Bytes are those of all gateways' connections, TLS and all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable

import msgspec

from benchmarks.against_flower.faults import Outcome, fieldfold_faults, flower_faults
from benchmarks.against_flower.runs import Cost, install_flower, round_without_work, run_fieldfold, run_flower
from benchmarks.against_flower.work import NODES, SLOW, SLOWER_BY, STEPS, TARGET_CYCLES, Work
from fieldfold.errors import FieldfoldError

SHORT_S, LONG_S = 1.0, 8.0
WANTED = {"straggler": 5.0, "none": 1.0, "bytes_up": 50.0}
FLOWER, TIMEOUT, OURS, SHIPPED = "Flower", "Flower, timeout", "fieldfold", "fieldfold, defaults"


class Row(msgspec.Struct, frozen=True):
    """One run; `cost` is None, and `why` says why, where it did not reach the target. `load` is that of the machine
    over the last minute, before the run."""

    system: str
    run_s: float
    straggler: bool
    seed: int
    load: float
    cost: Cost | None
    why: str = ""


def measured(system: str, work: Work, run: Callable[[], Cost]) -> Row:
    """Runs it and prints a line."""
    load, cost, why = os.getloadavg()[0], None, ""
    try:
        cost = run()
    except FieldfoldError as error:
        why = str(error)
    row = Row(system, work.run_s, work.straggler, work.seed, load, cost, why)
    slow = "one slow" if work.straggler else "none slow"
    said = why if cost is None else f"{cost.seconds:6.1f} s, {cost.steps} versions, {cost.score:.2f} cycles"
    print(f"  {system:<20} {work.run_s:3.0f} s  {slow:<9}  seed {work.seed}  load {load:4.1f}  {said}", flush=True)
    return row


def turn(run_s: float, seed: int, *, short: bool) -> list[Row]:
    """All systems once, one after the other."""
    even, uneven = (Work(seed, STEPS, run_s, straggler=straggler) for straggler in (False, True))
    rows = [measured(FLOWER, even, lambda: run_flower(even)), measured(OURS, even, lambda: run_fieldfold(even))]
    first = rows[0].cost
    rows += [measured(FLOWER, uneven, lambda: run_flower(uneven)), measured(OURS, uneven, lambda: run_fieldfold(uneven))]
    if first is not None:
        longest_s = first.longest_step_s
        rows.append(measured(TIMEOUT, uneven, lambda: run_flower(uneven, longest_s)))
    if short:
        rows.append(measured(SHIPPED, uneven, lambda: run_fieldfold(uneven, "")))
    return rows


def _middle(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def summary(rows: list[Row]) -> list[dict[str, object]]:
    """A line for each case and system: medians and the range of the time."""
    found: list[dict[str, object]] = []
    for run_s, straggler, system in dict.fromkeys((row.run_s, row.straggler, row.system) for row in rows):
        mine = [row for row in rows if (row.run_s, row.straggler, row.system) == (run_s, straggler, system)]
        costs = [row.cost for row in mine if row.cost is not None]
        line: dict[str, object] = {"run_s": run_s, "straggler": straggler, "system": system, "runs": len(mine)}
        line |= {"reached": len(costs)}
        for field in ("seconds", "total_s", "cpu_s", "bytes_up", "bytes_down", "steps"):
            line[field] = _middle([float(getattr(cost, field)) for cost in costs])
        line["fastest_s"] = min((cost.seconds for cost in costs), default=None)
        line["slowest_s"] = max((cost.seconds for cost in costs), default=None)
        found.append(line)
    return sorted(found, key=lambda line: (line["run_s"], line["straggler"]))


def show(lines: list[dict[str, object]]) -> None:
    """The table."""
    print(
        f"{'a run':>6} {'slow':>4}  {'':<20} {'runs':>4} {'time to target':>14} {'spread':>14} {'from nothing':>12}"
        f" {'CPU s':>6} {'up':>8} {'down':>8} {'steps':>5}"
    )
    for line in lines:
        spread = f"{line['fastest_s']:.0f} to {line['slowest_s']:.0f}" if line["reached"] else "-"
        print(
            f"{line['run_s']:4.0f} s {'1' if line['straggler'] else '0':>4}  {line['system']:<20}"
            f" {line['reached']}/{line['runs']:<2} {line['seconds']:12.1f} s {spread:>14} {line['total_s']:10.1f} s"
            f" {line['cpu_s']:6.1f} {line['bytes_up'] / 1e3:5.0f} kB {line['bytes_down'] / 1e3:5.0f} kB"
            f" {line['steps']:5.0f}"
        )


def ratios(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """How many times more Flower took than fieldfold; the better of Flower's settings beside its FedAvg of all."""
    found: list[dict[str, object]] = []
    for run_s, straggler in dict.fromkeys((line["run_s"], line["straggler"]) for line in lines):
        mine = {line["system"]: line for line in lines if (line["run_s"], line["straggler"]) == (run_s, straggler)}
        ours = mine[OURS]
        for system in (FLOWER, TIMEOUT):
            if system in mine:
                fields = ("seconds", "cpu_s", "bytes_up", "bytes_down")
                times = {field: float(str(mine[system][field])) / float(str(ours[field])) for field in fields}
                found.append({"run_s": run_s, "straggler": straggler, "against": system, **times})
    return found


def show_faults(found: dict[str, list[Outcome]]) -> None:
    """What was done, whether the run survived it, and what was seen."""
    for system, outcomes in found.items():
        print(system)
        for each in outcomes:
            waited = "-" if each.waited_s is None else f"{each.waited_s:.1f} s"
            score = "NaN or none" if each.score is None else f"{each.score:.1f}"
            print(
                f"  {each.fault:<44} {'goes on' if each.survives else 'IS LOST':<8} {waited:>8} {score:>11}  {each.seen}"
            )


def main() -> None:
    """Prints the tables and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_flower", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short local runs once, and no faults")
    parser.add_argument("--repetitions", type=int, default=3, help="with short local runs, a seed each")
    parser.add_argument("--long-repetitions", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=20)
    parser.add_argument("--only", choices=("speed", "faults"), help="leave the other out")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    install_flower()
    result: dict[str, object] = {"benchmark": "against_flower", "wanted": WANTED, "machine": machine()}
    print(f"{len(NODES)} gateways, {SLOW} {SLOWER_BY:.0f} times slower where one is slow; {STEPS} steps a local run;")
    print(f"target {TARGET_CYCLES} cycles; {machine()}")
    if chosen.only != "faults":
        empty = round_without_work()
        print(f"a round of Flower without any work: {empty.seconds:.1f} s, {empty.cpu_s:.1f} CPU s", flush=True)
        rows: list[Row] = []
        for run_s, times in ((SHORT_S, 1 if chosen.quick else chosen.repetitions), (LONG_S, chosen.long_repetitions)):
            if run_s == LONG_S and chosen.quick:
                continue
            for seed in range(chosen.first_seed, chosen.first_seed + times):
                rows += turn(run_s, seed, short=run_s == SHORT_S)
        lines = summary(rows)
        show(lines)
        result |= {"round_without_work": empty, "table": lines, "times_ours": ratios(lines), "rows": rows}
    if chosen.only != "speed" and not chosen.quick:
        faults = {"Flower": flower_faults(), "fieldfold": fieldfold_faults()}
        show_faults(faults)
        result["faults"] = faults
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def machine() -> dict[str, str]:
    """What it ran on and with."""
    packages = ("fieldfold", "numpy", "onnxruntime", "paho-mqtt")
    return {
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
