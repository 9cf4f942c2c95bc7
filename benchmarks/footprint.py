"""What a headless gateway costs: memory, processor and time to the first training step, beside importing torch.

A real daemon, connected to a real Mosquitto over TLS: before it has a task, while it trains at full speed, and
paused afterwards. Started with task and model in its store, as after a power cut. Torch does the same model's step
in a process of its own, with one thread.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from examples.turbofan import demo
from examples.turbofan.fleet import Fleet
from examples.turbofan.partition import partition
from fieldfold.control.client import ControlClient

RUN_FOLDER = Path(".cache/benchmarks/footprint")
NODE = "gateway-01"
MB = 1e6
SETTLE_S = 15.0
IDLE_S = 20.0
STARTS = 5
LIMITS = {"idle_mb": 60.0, "training_mb": 90.0, "first_step_s": 1.5, "idle_cpu_percent": 1.0}

TORCH = """
import time, sys
begun = time.time() if len(sys.argv) < 2 else float(sys.argv[1])
import torch, resource
torch.set_num_threads(1)
sys.path.insert(0, "examples/turbofan")
from task import WearModel
model = WearModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss = ((model(torch.randn(64, 30, 14)) - torch.rand(64, 1)) ** 2).mean()
loss.backward()
optimizer.step()
first = time.time() - begun
rss = int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
print(first, rss)
"""


def wait_for(what: str, get: Any, timeout_s: float = 60.0) -> Any:
    """Polls until `get` gives something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := get():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")


def cpu_percent(process: psutil.Process, seconds: float) -> float:
    """Share of one core that the process used over a time."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    used: float = sum(process.cpu_times()[:2]) - before
    return 100.0 * used / seconds


def measure_states(fleet: Fleet) -> dict[str, float]:
    """Memory and processor of a gateway through its states, in MB (10^6 bytes) and per cent of a core."""
    found: dict[str, float] = {}
    process = psutil.Process(fleet.pid(NODE))
    wait_for("the first state", lambda: (fleet.node_status(NODE) or {}).get("state") == "waiting for a task")
    time.sleep(SETTLE_S)
    found["waiting_mb"] = process.memory_info().rss / MB
    found["waiting_cpu_percent"] = cpu_percent(process, IDLE_S)
    fleet.start_aggregator()
    wait_for("training", lambda: (fleet.node_status(NODE) or {}).get("steps_per_s"))
    samples = []
    for _ in range(int(SETTLE_S)):
        time.sleep(1.0)
        samples.append(process.memory_info().rss / MB)
    found["training_mb"] = statistics.median(samples)
    found["training_peak_mb"] = peak_mb(process)
    found["steps_per_s"] = fleet.node_status(NODE)["steps_per_s"]
    with ControlClient(fleet.socket(NODE)) as client:
        client.command("pause")
    time.sleep(SETTLE_S)
    found["paused_mb"] = process.memory_info().rss / MB
    found["paused_cpu_percent"] = cpu_percent(process, IDLE_S)
    return found


def peak_mb(process: psutil.Process) -> float:
    """The highest resident size so far."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / MB


def measure_starts(fleet: Fleet) -> list[float]:
    """Seconds from starting the program to its first training step, with what its store holds."""
    found = []
    for _ in range(STARTS):
        fleet.end(NODE)
        begun = time.monotonic()
        fleet.start_node(NODE)
        wait_for("the first step", lambda: (fleet.node_status(NODE) or {}).get("step"))
        found.append(time.monotonic() - begun)
    return found


def measure_torch() -> tuple[float, float]:
    """Seconds to the first step, and MB."""
    runs = []
    for _ in range(STARTS):
        done = subprocess.run(
            [sys.executable, "-c", TORCH, str(time.time())], capture_output=True, text=True, check=True
        )
        first, rss = map(float, done.stdout.split())
        runs.append((first, rss / MB))
    return statistics.median(first for first, _ in runs), statistics.median(rss for _, rss in runs)


def main() -> None:
    """Prints the table and the JSON line."""
    engines = {NODE: partition(demo.PARTITION_SEED)[NODE]}
    with Fleet(RUN_FOLDER, demo.BUNDLE, engines, {NODE: 0.0}) as fleet:
        fleet.start_broker()
        fleet.start_node(NODE)
        found = measure_states(fleet)
        starts = measure_starts(fleet)
    torch_s, torch_mb = measure_torch()
    first_s = statistics.median(starts)
    rows = [
        ("waiting for a task", found["waiting_mb"], f"{found['waiting_cpu_percent']:.2f} % of a core"),
        (
            "training",
            found["training_mb"],
            f"{found['steps_per_s']:.0f} steps/s, peak {found['training_peak_mb']:.1f} MB",
        ),
        ("paused after training", found["paused_mb"], f"{found['paused_cpu_percent']:.2f} % of a core"),
        ("torch, one step of the same model", torch_mb, f"{torch_s:.2f} s to the first step"),
    ]
    for name, size, note in rows:
        print(f"{name:<36} {size:6.1f} MB   {note}")
    print(f"start to first training step         {first_s:6.2f} s    worst {max(starts):.2f} s of {len(starts)}")
    result = {
        "benchmark": "footprint",
        **{key: round(value, 3) for key, value in found.items()},
        "first_step_s": round(first_s, 3),
        "first_step_worst_s": round(max(starts), 3),
        "torch_mb": round(torch_mb, 1),
        "torch_first_step_s": round(torch_s, 3),
        "wanted": LIMITS,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
