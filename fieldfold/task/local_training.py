"""A local run: steps from the released model on a gateway's own windows, and the delta they lead to."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from typing import Protocol

import msgspec
import numpy as np

from fieldfold.errors import DataError
from fieldfold.params import Vector, is_finite
from fieldfold.sensors.windows import Windows
from fieldfold.task.runtime import Runtime


class Plan(msgspec.Struct, frozen=True):
    """One local run: `num_steps` steps, or those begun within `longest_s` seconds (0: no limit), at least one."""

    num_steps: int
    longest_s: float
    batch_size: int
    learning_rate: float
    proximal: float
    clip_norm: float
    seed: int
    keep_optimizer: bool
    max_steps_per_s: float
    noise_std: float
    num_trained: int


class LocalResult(msgspec.Struct, frozen=True):
    """What a local run led to.

    Attributes:
        delta: shared parameters, trained minus global (float32, layout.num_params).
        local: the values that stay here (float32, local.num_params).
        num_steps: done.
    """

    delta: Vector
    local: Vector
    num_steps: int
    train_loss: float
    seconds: float


class Gate(Protocol):
    """Whether a run may go on. Asked before every step."""

    def passes(self, wait_s: float) -> bool:
        """Sleeps for `wait_s`, and as long as training is paused; False when the run is to be abandoned."""

    def stepped(self, step: int, of: int, loss: float) -> None:
        """Told after every step."""


def run_seed(node: str, seed: int, version: int, attempt: int) -> int:
    """A seed for one run: another for each node, version and attempt, the same when the run is repeated."""
    text = f"{node}/{seed}/{version}/{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little") & 0x7FFFFFFF


def train_locally(  # noqa: PLR0913, PLR0917 -- a run is these
    runtime: Runtime,
    start: Vector,
    local: Vector,
    windows: Windows,
    plan: Plan,
    gate: Gate,
    *,
    anchor: Vector | None = None,
) -> LocalResult | None:
    """Runs the plan from the shared values `start` and the node's own; None when the gate did not let it finish.

    `anchor` is what the plan's proximal term pulls towards; left out, the start.

    Raises:
        DataError: when there are fewer windows than a batch, or the loss or the parameters stop being finite.
    """
    begun_at = time.monotonic()
    runtime.begin(start, local=local, anchor=anchor, keep_optimizer=plan.keep_optimizer)
    noise_rng = np.random.default_rng()  # not from the seed: whoever can foresee the noise can take it off again
    batches = windows.batches(plan.batch_size, np.random.default_rng(plan.seed))
    losses = 0.0
    for step, batch in enumerate(itertools.islice(batches, plan.num_steps)):
        due_at = begun_at + step / plan.max_steps_per_s if plan.max_steps_per_s else 0.0
        if not gate.passes(max(0.0, due_at - time.monotonic())):
            return None
        noise = noise_rng.standard_normal(plan.num_trained, np.float32) if plan.noise_std else None
        loss = runtime.step(
            batch,
            learning_rate=plan.learning_rate,
            seed=(plan.seed + step) & 0x7FFFFFFF,
            proximal=plan.proximal,
            clip_norm=plan.clip_norm,
            noise=None if noise is None else noise * np.float32(plan.noise_std),
        )
        if not math.isfinite(loss):
            raise diverged(step)
        losses += loss
        gate.stepped(step + 1, plan.num_steps, loss)
        if plan.longest_s and time.monotonic() - begun_at >= plan.longest_s:
            break
    done = step + 1
    if plan.max_steps_per_s and not gate.passes(max(0.0, begun_at + done / plan.max_steps_per_s - time.monotonic())):
        return None
    delta, local = runtime.delta(), runtime.local()
    if not (is_finite(delta) and is_finite(local)):
        raise diverged(done)
    return LocalResult(delta, local, done, losses / done, time.monotonic() - begun_at)


def diverged(step: int) -> DataError:
    """Training left the finite numbers; nothing of it is sent."""
    return DataError(
        f"training diverged: the loss was not finite after {step} steps",
        "look for outliers in the data, or lower the task's learning rate",
    )
