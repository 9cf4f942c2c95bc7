"""The terminal apps over a pseudo-terminal: how soon they answer and paint, what they send, and what they cost.

A real daemon trains as fast as it can, with aggregator and Mosquitto, on the same cores; the fleet's table is
measured at an aggregator's socket with 2,000 nodes behind it that are never twice the same.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aggregator.tui.orders import ORDERS
from benchmarks.load.usage import cpu_s, rss_bytes
from benchmarks.screens.terminal import Terminal
from examples.turbofan import demo
from examples.turbofan.fleet import Fleet
from examples.turbofan.partition import partition
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError

RUN_FOLDER = Path(".cache/benchmarks/tui")
NODE = "gateway-01"
FOLD = '[fold]\nmethod = "fedasync"\n'
ROOMS = {"d": "Data", "t": "Training", "m": "Model", "n": "Network", "l": "Log", "o": "Overview"}
KEY_ROUNDS, STARTS = 25, 5
WINDOW_S = 5.0
IDLE_S = 20.0
STATUSES_PER_S, ASK_EVERY_S = 1000, 0.005
STATUS_REQUEST = b'{"ask":"status"}\n'
STEPS_PER_UPDATE = 200
HALL, HOUR_LOOKS, FAST_LOOK_S = 2000, 3600, 0.02
WANTED = {
    "key_median_ms": 100,
    "key_p99_ms": 250,
    "first_paint_s": 1.5,
    "attached_slower_cpu_percent": 1,
    "asked_often_slower_cpu_percent": 1,
    "idle_bytes_per_s": 1000,
    "idle_cpu_percent": 2,
    "sort_ms": 200,
    "filter_ms": 200,
}
FAST_LOOKS = f"""
import sys
from pathlib import Path
from aggregator.tui.app import FleetApp
FleetApp(Path(sys.argv[1]), every_s={FAST_LOOK_S}).run()
"""


def node_screens(fleet: Fleet) -> list[str]:
    """The command of a person."""
    return [sys.executable, "-m", "fieldfold", "node", "--socket", str(fleet.socket(NODE))]


def measure_keys(fleet: Fleet) -> dict[str, float]:
    """Milliseconds from a key to the first bytes of the screen that it opens, while the daemon trains."""
    taken = []
    with Terminal(node_screens(fleet)) as terminal:
        terminal.reads(NODE)
        terminal.settle_for(1.0)
        for _ in range(KEY_ROUNDS):
            for key, name in ROOMS.items():
                taken.append(1000 * terminal.press(key, f"{NODE}  {name}"))
                time.sleep(0.05)
    ordered = sorted(taken)
    return {"key_median_ms": statistics.median(taken), "key_p99_ms": ordered[int(0.99 * (len(ordered) - 1))]}


def measure_first_paint(fleet: Fleet) -> dict[str, float]:
    """Seconds from the command to the first screen, and to the node's figures on it, while the daemon trains."""
    painted, filled = [], []
    for _ in range(STARTS):
        with Terminal(node_screens(fleet)) as terminal:
            painted.append(terminal.reads("Needs you") - terminal.began_at)
            filled.append(terminal.reads("steps/s") - terminal.began_at)
    return {"first_paint_s": statistics.median(painted), "first_figures_s": statistics.median(filled)}


def steps(fleet: Fleet, seconds: float) -> tuple[float, float]:
    """Training steps of the daemon in a time, by its own account: a second of its runs, a second of its processor."""
    with ControlClient(fleet.socket(NODE)) as client:
        after, spent = client.view("runs")["end"], cpu_s(fleet.pid(NODE))
        time.sleep(seconds)
        runs, spent = client.view("runs", after=after)["items"], cpu_s(fleet.pid(NODE)) - spent
    made = sum(run["num_steps"] for run in runs)
    return made / sum(run["seconds"] for run in runs), made / spent


@contextlib.contextmanager
def asked_often(fleet: Fleet) -> Iterator[None]:
    """STATUSES_PER_S statuses a second are asked for meanwhile, and all of them are answered."""
    ended = threading.Event()
    asked, answered = 0, 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(fleet.socket(NODE)))

        def ask() -> None:
            nonlocal asked
            begun = time.monotonic()
            while not ended.wait(ASK_EVERY_S):
                due = int(STATUSES_PER_S * (time.monotonic() - begun)) - asked
                client.sendall(STATUS_REQUEST * due)
                asked += due

        def count() -> None:
            nonlocal answered
            while received := client.recv(1 << 20):
                answered += received.count(b"\n")

        threads = [threading.Thread(target=each) for each in (ask, count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            threads[0].join()
            client.shutdown(socket.SHUT_WR)
            threads[1].join()
    if answered != asked:
        raise RuntimeError(f"{asked} were asked for and {answered} answered")


@contextlib.contextmanager
def looked_at(fleet: Fleet) -> Iterator[None]:
    """The screens are attached meanwhile."""
    with Terminal(node_screens(fleet)) as terminal:
        terminal.reads("steps/s")
        ended = threading.Event()

        def read() -> None:
            while not ended.is_set():
                terminal.watch(0.2)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def measure_cost(fleet: Fleet, name: str, what: Any, window_s: float, turns: int) -> dict[str, float]:
    """Per cent of its training speed that the daemon loses meanwhile: the median over turns without and with.

    By the clock, which counts what whoever asks takes away from the cores, and by the daemon's own processor time.
    The windows are short and stand side by side, so that what else the machine does is in both.
    """
    left = []
    for _ in range(turns):
        usual = steps(fleet, window_s)
        with what(fleet):
            left.append([now / before for now, before in zip(steps(fleet, window_s), usual, strict=True)])
    lost = [100 * (1 - statistics.median(each)) for each in zip(*left, strict=True)]
    return {f"{name}_slower_percent": lost[0], f"{name}_slower_cpu_percent": lost[1]}


def measure_idle(fleet: Fleet) -> dict[str, float]:
    """Bytes a second and per cent of a core of an app that looks at a paused node."""
    with ControlClient(fleet.socket(NODE)) as client:
        client.command("pause")
    with Terminal(node_screens(fleet)) as terminal:
        terminal.reads("PAUSED")
        terminal.watch(12.0)
        before = cpu_s(terminal.pid)
        sent = terminal.watch(IDLE_S)
        spent = cpu_s(terminal.pid) - before
    with ControlClient(fleet.socket(NODE)) as client:
        client.command("resume")
    return {"idle_bytes_per_s": sent / IDLE_S, "idle_cpu_percent": 100 * spent / IDLE_S}


@contextlib.contextmanager
def hall() -> Iterator[Path]:
    """A process that answers as an aggregator of many nodes; gives its socket."""
    with tempfile.TemporaryDirectory(prefix="fieldfold-") as folder:
        path = Path(folder) / "aggregator.sock"
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.screens.hall", str(path), str(HALL)])
        try:
            while not answers(path):
                time.sleep(0.05)
            yield path
        finally:
            process.terminate()
            process.wait()


def answers(path: Path) -> bool:
    """Whether somebody listens there."""
    try:
        ControlClient(path).close()
    except ControlError:
        return False
    return True


def measure_table() -> dict[str, float]:
    """Milliseconds to sort and to filter the fleet's table, median; and the app's memory over an hour of looks."""
    found: dict[str, float] = {}
    with hall() as path:
        with Terminal([sys.executable, "-m", "fieldfold", "aggregator", "tui", "--socket", str(path)]) as terminal:
            terminal.reads("press-0001")
            terminal.settle_for(1.0)
            sorted_in = []
            for name in (*ORDERS[1:], ORDERS[0]) * 2:
                sorted_in.append(1000 * terminal.press("s", f"sorted by {name}"))
                time.sleep(0.2)
            found["sort_ms"] = statistics.median(sorted_in)
            filtered = []
            for number in (1234, 77, 1999, 500, 3):
                terminal.press("/", "")
                terminal.settle_for(0.3)
                filtered.append(1000 * terminal.press(f"{number:04d}", f"press-{number:04d}"))
                terminal.press("\x1b", "")
                terminal.settle_for(0.7)
            found["filter_ms"] = statistics.median(filtered)
        found |= measure_memory(path)
    return found


def measure_memory(path: Path) -> dict[str, float]:
    """Megabytes of the fleet's app after a sixth of an hour of looks, and after the hour."""
    with Terminal([sys.executable, "-c", FAST_LOOKS, str(path)]) as terminal, ControlClient(path) as client:
        terminal.reads("press-0001")
        begun = client.view("looks")
        found = {}
        for name, looks in (("memory_early_mb", HOUR_LOOKS // 6), ("memory_late_mb", HOUR_LOOKS)):
            while client.view("looks") - begun < looks:
                terminal.watch(1.0)
            found[name] = rss_bytes(terminal.pid) / 1e6
    return found


def said(found: dict[str, float]) -> dict[str, float]:
    """Prints a part of the table."""
    for name, value in found.items():
        wanted = f"   wanted: at most {WANTED[name]}" if name in WANTED else ""
        print(f"{name:<32} {value:10.2f}{wanted}", flush=True)
    return found


def main() -> None:
    """Prints the table and the JSON line."""
    found: dict[str, float] = {}
    engines = {NODE: partition(demo.PARTITION_SEED)[NODE]}
    with Fleet(RUN_FOLDER, demo.BUNDLE, engines, {NODE: 0.0}, fold=FOLD, steps_per_update=STEPS_PER_UPDATE) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        fleet.start_node(NODE)
        while not (fleet.node_status(NODE) or {}).get("accepted"):
            time.sleep(0.2)
        found |= said({"training_steps_per_s": steps(fleet, WINDOW_S)[0]})
        found |= said(measure_keys(fleet))
        found |= said(measure_first_paint(fleet))
        found |= said(measure_cost(fleet, "attached", looked_at, 2.5, 20))
        found |= said(measure_cost(fleet, "asked_often", asked_often, 1.5, 40))
        found |= said(measure_idle(fleet))
    found |= said(measure_table())
    rounded = {name: round(value, 2) for name, value in found.items()}
    sys.stdout.write(json.dumps({"benchmark": "tui", **rounded, "wanted": WANTED}) + "\n")


if __name__ == "__main__":
    main()
