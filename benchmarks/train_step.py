"""A training step in both runtimes beside the same step hand-written in torch, for every member of the zoo.

Steps: seconds of the process's own CPU time, one thread, all in one process and in turns, the median of several
rounds. Cold start: CPU time of a process of its own from nothing to the first step, and its memory after 20 steps.
Bundles are built once and kept in .cache/bundles under what they were built from; the tests use the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from benchmarks.zoo import eager
from fieldfold.task import Bundle
from fieldfold.task.authoring import Task
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime
from fieldfold.task.torch_runtime import TorchRuntime
from tests.task.built import built_path
from tests.task.zoo.members import MEMBERS

ROOT = Path(__file__).resolve().parents[1]
MB = 1e6
LIMITS = {"ratio": 1.0, "median_ratio": 0.5, "cold_ratio": 0.1, "rss_mb": 100.0}
ROUND_S = 0.15

ONNX_COLD = """
import sys, time
from pathlib import Path
from fieldfold.task import Bundle
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.self_check import read_batch
import numpy as np

bundle = Bundle.read(Path(sys.argv[1]))
rows = np.arange(bundle.manifest.batch_size) % bundle.manifest.self_check.batch_size
batch = {name: array[rows] for name, array in read_batch(bundle).items()}
runtime = OnnxRuntime(bundle)
runtime.begin(bundle.initial_parameters())
for step in range(20):
    runtime.step(batch, learning_rate=1e-3, seed=step)
    if step == 0:
        first = time.process_time()
rss = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(first, int(rss.split()[1]) * 1024)
"""
TORCH_COLD = """
import sys, time
import torch
torch.set_num_threads(1)
from benchmarks.zoo import eager
from tests.task.zoo.members import MEMBERS
step = eager(MEMBERS[sys.argv[1]]())
for count in range(20):
    step()
    if count == 0:
        first = time.process_time()
rss = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(first, int(rss.split()[1]) * 1024)
"""


class Row(msgspec.Struct, frozen=True):
    """One member; times in seconds of CPU, memory in bytes."""

    name: str
    num_trained: int
    bundle_bytes: int
    onnx_s: float
    torch_runtime_s: float
    torch_s: float
    onnx_cold_s: float
    torch_cold_s: float
    onnx_rss_bytes: int
    torch_rss_bytes: int


def compiled(runtime: Runtime, bundle: Bundle, task: Task) -> Callable[[], float]:
    """The same step of a bundle, with all that a node does for it."""
    batch = Arrays.of(task.data).sample(task.batch_size, task.seed)
    runtime.begin(bundle.initial_parameters())
    return lambda: runtime.step(batch, learning_rate=1e-3, seed=1)


def cpu_times(steps: list[Callable[[], float]], rounds: int) -> list[float]:
    """CPU seconds of each step, measured in turns."""
    counts = []
    for step in steps:
        step()
        begun = time.process_time()
        step()
        counts.append(max(1, int(ROUND_S / max(time.process_time() - begun, 1e-6))))
    found: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, count, seconds in zip(steps, counts, found, strict=True):
            begun = time.process_time()
            for _ in range(count):
                step()
            seconds.append((time.process_time() - begun) / count)
    return [statistics.median(seconds) for seconds in found]


def cold(script: str, argument: str) -> tuple[float, int]:
    """CPU seconds to the first step and resident bytes after the 20th, of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, argument], cwd=ROOT, check=True, capture_output=True, text=True
    )
    seconds, rss = done.stdout.split()
    return float(seconds), int(rss)


def measure(name: str, rounds: int) -> Row:
    """Builds a member and measures both."""
    task, path = MEMBERS[name](), built_path(name, MEMBERS[name])
    bundle = Bundle.read(path)
    runtimes: list[Runtime] = [OnnxRuntime(bundle), TorchRuntime(bundle)]
    steps = [eager(task), *(compiled(runtime, bundle, task) for runtime in runtimes)]
    torch_s, onnx_s, runtime_s = cpu_times(steps, rounds)
    onnx_cold_s, onnx_rss = cold(ONNX_COLD, str(path))
    torch_cold_s, torch_rss = cold(TORCH_COLD, name)
    return Row(
        name=name,
        num_trained=bundle.manifest.num_trained,
        bundle_bytes=len(bundle.data),
        onnx_s=onnx_s,
        torch_runtime_s=runtime_s,
        torch_s=torch_s,
        onnx_cold_s=onnx_cold_s,
        torch_cold_s=torch_cold_s,
        onnx_rss_bytes=onnx_rss,
        torch_rss_bytes=torch_rss,
    )


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("members", nargs="*", help="all of the zoo where none are named")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("torch.__trace").propagate = False
    print(
        f"{'member':<34} {'trained':>8} {'bundle kB':>9}   step ms: onnx   torch  ratio  bundle on torch"
        "   cold s: onnx torch   MB"
    )
    rows = []
    for name in chosen.members or MEMBERS:
        row = measure(name, chosen.rounds)
        rows.append(row)
        print(
            f"{row.name:<34} {row.num_trained:8} {row.bundle_bytes / 1e3:9.0f} {1e3 * row.onnx_s:15.3f}"
            f" {1e3 * row.torch_s:7.3f} {row.onnx_s / row.torch_s:6.2f} {1e3 * row.torch_runtime_s:16.3f}"
            f" {row.onnx_cold_s:14.2f}"
            f" {row.torch_cold_s:5.2f} {row.onnx_rss_bytes / MB:5.0f} {row.torch_rss_bytes / MB:4.0f}",
            flush=True,
        )
    ratios = [row.onnx_s / row.torch_s for row in rows]
    found = {
        "ratio": max(ratios),
        "median_ratio": statistics.median(ratios),
        "cold_ratio": max(row.onnx_cold_s / row.torch_cold_s for row in rows),
        "rss_mb": max(row.onnx_rss_bytes for row in rows) / MB,
    }
    missed = [name for name, limit in LIMITS.items() if found[name] > limit]
    result = {"benchmark": "train_step", **found, "limits": LIMITS, "missed": missed}
    print(json.dumps({**result, "rows": [msgspec.to_builtins(row) for row in rows]}))


if __name__ == "__main__":
    main()
