"""What both systems have alike: who holds which engines, and one local run on them.

Flower's ClientApp is a new process for every message. So its data is laid down here as arrays, cut and normalised,
which load in a moment; and the run itself is the node's own code.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from fieldfold.params import Vector
from fieldfold.sensors.windows import Windows, origins
from fieldfold.task import RuntimeSettings, open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import LocalResult, Plan, run_seed, train_locally

NODES = tuple(f"gateway-{number}" for number in range(1, 6))
SLOW = NODES[-1]
SLOWER_BY = 10.0
ENGINES = 100
STEPS = 10
"""Training steps of a local run: the task's own number."""
TARGET_CYCLES = 14.5
"""RMSE on the official test engines, as in docs/METHODS.md."""


class Work(msgspec.Struct, frozen=True):
    """What a run of either system is given.

    Attributes:
        seed: of the partition and of the batches.
        steps: training steps of a local run.
        run_s: how long a local run of a fast gateway takes: the steps, and sleep between them.
        straggler: whether SLOW takes ten times as long.
    """

    seed: int
    steps: int
    run_s: float
    straggler: bool

    def pace(self, node: str) -> float:
        """Steps a second; 0 is as fast as they go."""
        if not self.run_s:
            return 0.0
        return self.steps / self.run_s / (SLOWER_BY if self.straggler and node == SLOW else 1.0)


def partition(seed: int) -> dict[str, tuple[int, ...]]:
    """Node -> its engines, twenty each."""
    order = np.random.default_rng(seed).permutation(ENGINES) + 1
    parts = np.array_split(order, len(NODES))
    return {node: tuple(sorted(map(int, part))) for node, part in zip(NODES, parts, strict=True)}


def keep(windows: Windows, path: Path) -> None:
    """Writes windows so that `kept` gives them back."""
    np.savez(path, rows=windows.rows, targets=windows.targets, starts=windows.starts, window=windows.window)


def kept(path: Path, bundle: Bundle) -> Windows:
    """What `keep` has written."""
    with np.load(path) as found:
        return Windows(
            found["rows"], found["targets"], found["starts"], int(found["window"]), origins(bundle.manifest.data)
        )


class _Open:
    """A gate that nobody shuts."""

    def passes(self, wait_s: float) -> bool:
        """Sleeps."""
        time.sleep(wait_s)
        return True

    def stepped(self, step: int, of: int, loss: float) -> None:
        """Nobody is told."""


def run_locally(  # noqa: PLR0913 - whose run, of what, and from where
    bundle: Bundle, windows: Windows, work: Work, *, node: str, start: Vector, version: int
) -> LocalResult:
    """One run of `node` from the parameters of `version`, as node_app/bench.py does it.

    Raises:
        DataError: when training leaves the finite numbers.
    """
    manifest = bundle.manifest
    plan = Plan(
        num_steps=work.steps,
        longest_s=0.0,
        batch_size=manifest.batch_size,
        learning_rate=manifest.learning_rate.at(version),
        proximal=manifest.proximal,
        clip_norm=manifest.clip_norm,
        seed=run_seed(node, work.seed, version, 0),
        keep_optimizer=False,
        max_steps_per_s=work.pace(node),
        noise_std=0.0,
        num_trained=manifest.num_trained,
    )
    runtime = open_runtime(bundle, RuntimeSettings(runtime="onnx", threads=1))
    result = train_locally(runtime, start, bundle.initial_local(), windows, plan, _Open())
    assert result is not None  # noqa: S101 - the gate is open
    return result
