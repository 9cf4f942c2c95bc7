"""fieldfold and Flower, real processes side by side: the way to the same model, and what a fault leaves of a run.

Five gateways, one of which may be ten times slower, learn the turbofan task; the same ONNX Runtime steps in both. A
local run is stretched by sleep, so that two cores do for all. Flower in deployment mode over TLS: its FedAvg of all
nodes, and the same with a timeout, the longest that a round took without a straggler. fieldfold over Mosquitto with
mutual TLS. Time, processor time and bytes count from the first model to the first at the target, with fieldfold to
the third in a row. Bytes are those of all gateways' connections, TLS and all.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import sys
from collections.abc import Callable

import msgspec

from benchmarks.against_flower.faults import fieldfold_faults, flower_faults
from benchmarks.against_flower.runs import Cost, install_flower, round_without_work, run_fieldfold, run_flower
from benchmarks.against_flower.table import FLOWER, OURS, SHIPPED, TIMEOUT, Row, lines, show, show_faults, times_more
from benchmarks.against_flower.work import NODES, SLOW, SLOWER_BY, STEPS, TARGET_CYCLES, Work
from fieldfold.errors import FieldfoldError

SHORT_S, LONG_S = 1.0, 8.0
WANTED = {"times_shorter_with_a_straggler": 5.0, "times_shorter_without": 1.0, "times_fewer_bytes_up": 50.0}


def measured(system: str, work: Work, run: Callable[[], Cost]) -> Row:
    """Runs it and prints a line."""
    load, cost, why = os.getloadavg()[0], None, ""
    try:
        cost = run()
    except FieldfoldError as error:
        why = str(error)
    slow = "one slow" if work.straggler else "none slow"
    said = why if cost is None else f"{cost.seconds:6.1f} s  {cost.steps:3} models  {cost.score:.2f} cycles"
    print(f"  {system:<20} {work.run_s:3.0f} s  {slow:<9}  seed {work.seed}  load {load:4.1f}  {said}", flush=True)
    return Row(system, work.run_s, work.straggler, work.seed, load, cost, why)


def turn(run_s: float, seed: int) -> list[Row]:
    """All systems once, one after the other."""
    even, uneven = (Work(seed, STEPS, run_s, straggler=straggler) for straggler in (False, True))
    rows = [
        measured(FLOWER, even, lambda: run_flower(even)),
        measured(OURS, even, lambda: run_fieldfold(even)),
        measured(FLOWER, uneven, lambda: run_flower(uneven)),
        measured(OURS, uneven, lambda: run_fieldfold(uneven)),
    ]
    if (first := rows[0].cost) is not None:
        rows.append(measured(TIMEOUT, uneven, lambda: run_flower(uneven, first.longest_step_s)))
    if run_s == SHORT_S:
        rows.append(measured(SHIPPED, uneven, lambda: run_fieldfold(uneven, "")))
    return rows


def machine() -> dict[str, str]:
    """What it ran on and with."""
    packages = ("fieldfold", "numpy", "onnxruntime", "paho-mqtt")
    return {
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _speed(first_seed: int, short: int, long: int) -> dict[str, object]:
    empty = round_without_work()
    print(f"a round of Flower without any work: {empty.seconds:.1f} s, {empty.cpu_s:.1f} CPU s", flush=True)
    rows = [
        row
        for run_s, times in ((SHORT_S, short), (LONG_S, long))
        for seed in range(first_seed, first_seed + times)
        for row in turn(run_s, seed)
    ]
    table = lines(rows)
    show(table)
    return {"round_without_work": empty, "table": table, "times_more": times_more(table), "rows": rows}


def main() -> None:
    """Prints the tables and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_flower", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short local runs once, and no faults")
    parser.add_argument("--short", type=int, default=3, help="repetitions with short local runs, a seed each")
    parser.add_argument("--long", type=int, default=1, help="and with long ones")
    parser.add_argument("--first-seed", type=int, default=20)
    parser.add_argument("--only", choices=("speed", "faults"), help="leave the other out")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    install_flower()
    print(f"{len(NODES)} gateways, {SLOW} {SLOWER_BY:.0f} times slower where one is slow; {STEPS} steps a local run;")
    print(f"target {TARGET_CYCLES} cycles; {machine()}")
    result: dict[str, object] = {"benchmark": "against_flower", "wanted": WANTED, "machine": machine()}
    if chosen.only != "faults":
        short, long = (1, 0) if chosen.quick else (chosen.short, chosen.long)
        result |= _speed(chosen.first_seed, short, long)
    if chosen.only != "speed" and not chosen.quick:
        faults = {FLOWER: flower_faults(), OURS: fieldfold_faults()}
        show_faults(faults)
        result["faults"] = faults
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
