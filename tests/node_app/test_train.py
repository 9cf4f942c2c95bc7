"""A local run: what it takes from task and configuration, that it can be repeated, held and abandoned."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fieldfold.errors import DataError
from fieldfold.sensors.dataset import load
from fieldfold.sensors.statistics import normalisation
from fieldfold.sensors.windows import Windows
from fieldfold.task import open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import LocalResult, Plan, run_seed, train_locally
from fieldfold.task.runtime import Runtime
from node_app.config import TrainingConfig
from node_app.train import plan_run
from tests.node_app.turbofan import data_of

NODE = "press-07"


SEED = run_seed(NODE, 0, 0, 0)


class Open:
    """A gate that lets everything pass until `closes_before`."""

    def __init__(self, closes_before: int = 1_000_000) -> None:
        self.closes_before = closes_before
        self.asked = 0
        self.losses: list[float] = []
        self.waits: list[float] = []

    def passes(self, wait_s: float) -> bool:
        self.waits.append(wait_s)
        time.sleep(wait_s)
        self.asked += 1
        return self.asked <= self.closes_before

    def stepped(self, step: int, of: int, loss: float) -> None:
        assert step == len(self.losses) + 1 <= of
        self.losses.append(loss)


@pytest.fixture(scope="module")
def windows(bundle: Bundle) -> Windows:
    raw = load(bundle.manifest.data, data_of(3, 5, 8), Path())
    return raw.normalised(normalisation(raw.sums)).train


@pytest.fixture
def runtime(bundle: Bundle) -> Runtime:
    return open_runtime(bundle)


@pytest.fixture
def plan(bundle: Bundle, windows: Windows) -> Plan:
    return plan_run(bundle.manifest, TrainingConfig(), 0, len(windows), SEED)


def run(bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan, gate: Open | None = None) -> LocalResult:
    result = train_locally(
        runtime, bundle.initial_parameters(), bundle.initial_local(), windows, plan, gate or Open()
    )
    assert result is not None
    return result


def test_a_plan_is_the_task_s_where_the_configuration_says_nothing(bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, proximal=0.2, clip_norm=3.0)
    plan = plan_run(manifest, TrainingConfig(), 60, 1000, SEED)
    assert plan.num_steps == manifest.local_steps
    assert plan.batch_size == manifest.batch_size
    assert plan.learning_rate == pytest.approx(manifest.learning_rate.initial / 2), "its half-life is 60 versions"
    assert (plan.proximal, plan.clip_norm) == (0.2, 3.0)


def test_the_configuration_overrides_the_task(bundle: Bundle) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, proximal=0.2, clip_norm=3.0)
    config = TrainingConfig(steps_per_update=7, proximal=0.0, clip_norm=1.5, max_steps_per_s=4.0)
    plan = plan_run(manifest, config, 0, 1000, SEED)
    assert (plan.num_steps, plan.proximal, plan.clip_norm, plan.max_steps_per_s) == (7, 0.0, 1.5, 4.0)
    epochs = plan_run(manifest, TrainingConfig(epochs_per_update=3, steps_per_update=7), 0, 200, SEED)
    assert epochs.num_steps == 3 * (200 // manifest.batch_size)


def test_every_run_has_a_seed_of_its_own_and_the_same_one_when_repeated() -> None:
    keys = list(itertools.product([NODE, "press-08"], [0, 1], range(50), [0, 1]))
    seeds = [run_seed(*key) for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [run_seed(*key) for key in keys]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_run_learns_and_its_delta_leads_from_the_released_model(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan
) -> None:
    gate = Open()
    result = run(bundle, runtime, windows, msgspec.structs.replace(plan, num_steps=60), gate)
    assert result.num_steps == len(gate.losses) == 60
    assert result.train_loss == pytest.approx(float(np.mean(gate.losses)))
    assert np.mean(gate.losses[-10:]) < 0.7 * np.mean(gate.losses[:10])
    assert result.delta.dtype == np.float32
    assert np.array_equal(result.delta, runtime.parameters() - bundle.initial_parameters())


def test_a_run_that_is_repeated_gives_the_same_bits_and_another_version_others(
    bundle: Bundle, windows: Windows, plan: Plan
) -> None:
    first = run(bundle, open_runtime(bundle), windows, plan)
    again = run(bundle, open_runtime(bundle), windows, plan)
    other = run(bundle, open_runtime(bundle), windows, msgspec.structs.replace(plan, seed=run_seed(NODE, 0, 1, 0)))
    assert first.delta.tobytes() == again.delta.tobytes()
    assert first.delta.tobytes() != other.delta.tobytes()


@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_that_the_gate_ends_leaves_no_result(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan, steps: int
) -> None:
    gate = Open(closes_before=steps)
    assert train_locally(runtime, bundle.initial_parameters(), bundle.initial_local(), windows, plan, gate) is None
    assert len(gate.losses) == steps


def test_a_pace_is_kept_and_also_after_the_last_step(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan
) -> None:
    result = run(bundle, runtime, windows, msgspec.structs.replace(plan, num_steps=4, max_steps_per_s=20.0))
    assert result.seconds >= 4 / 20


def test_a_run_that_takes_too_long_ends_with_the_steps_that_are_done(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan
) -> None:
    held_back = msgspec.structs.replace(plan, num_steps=1000, max_steps_per_s=20.0, longest_s=0.12)
    gate = Open()
    result = run(bundle, runtime, windows, held_back, gate)
    assert 1 <= result.num_steps == len(gate.losses) <= 4
    at_least_one = run(bundle, runtime, windows, msgspec.structs.replace(plan, longest_s=1e-9))
    assert at_least_one.num_steps == 1


@pytest.mark.parametrize("rate", [1e30, 1e4])
def test_a_run_that_diverges_is_said_and_gives_nothing_to_send(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan, rate: float
) -> None:
    with pytest.raises(DataError, match="training diverged") as told:
        run(bundle, runtime, windows, msgspec.structs.replace(plan, num_steps=40, learning_rate=rate))
    assert "learning rate" in told.value.hint


def test_fewer_windows_than_a_batch_are_refused(
    bundle: Bundle, runtime: Runtime, windows: Windows, plan: Plan
) -> None:
    with pytest.raises(DataError, match="gives 10 windows to train on, a batch of this task needs 64"):
        run(bundle, runtime, windows.thinned(10), plan)
