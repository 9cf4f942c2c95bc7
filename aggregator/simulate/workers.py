"""Processes that train, encode and score, with the task's own runtime; a job holds all that it needs."""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aggregator.simulate.partition import Holdings, Indices
from aggregator.simulate.scenario import Scenario
from fieldfold.codec import ErrorFeedback
from fieldfold.errors import FieldfoldError
from fieldfold.params import Vector
from fieldfold.sensors import files
from fieldfold.sensors.dataset import assemble
from fieldfold.sensors.schema import ColumnTarget, DataSchema
from fieldfold.sensors.statistics import normalisation
from fieldfold.sensors.windows import Windows
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.local_training import Plan, train_locally
from fieldfold.task.opening import RuntimeSettings
from fieldfold.task.runtime import Runtime

Targets: TypeAlias = NDArray[np.float32]
"""Of each row, (num_rows, num_columns)."""


MOST_SCORED = 128
"""Windows of its own on which a node scores the version that it starts from."""


class Run(NamedTuple):
    """A local run to be done.

    Attributes:
        base: the parameters that it starts from.
        base_version: their version, by which the learning rate may fall.
        windows: indices of the node's training windows.
        steps: so many.
        seed: of its batches.
        relabelled: whether each class is taken for the next one, which is one way to lie.
        residual: what the codec left out before; None for nothing.
        tell: whether the delta is wanted besides, in full.
    """

    base: Vector
    base_version: int
    windows: Indices
    steps: int
    seed: int
    relabelled: bool = False
    residual: Vector | None = None
    tell: bool = False


class Trained(NamedTuple):
    """What a node sends and keeps.

    Attributes:
        payload: of the update.
        residual: what the codec left out of it.
        norm: length of what was trained, with what had been left out before.
        loss: of the version that it started from, on its own windows.
        delta: where it was asked for.
    """

    payload: bytes
    residual: Vector | None
    norm: float
    loss: float
    delta: Vector | None


class Scores(NamedTuple):
    """The deciding metric over all held-out windows, and over those of the classes that only slow nodes hold."""

    overall: float
    slow_only: float | None


@dataclass(frozen=True, slots=True)
class Data:
    """All training windows of the fleet, normalised with its statistics, and the held-out ones."""

    train: Windows
    held_out: Windows
    holdings: Holdings


def read(scenario: Scenario, bundle: Bundle, base: Path) -> Data:
    """Reads what the scenario names, relative to the folder `base`.

    Raises:
        DataError: when files, columns or cells are not what the task needs.
        ConfigError: for column settings that do not suit the task.
    """
    schema = bundle.manifest.data
    reading = files.read(schema, scenario.data, base)
    dataset = assemble(schema, reading)
    beside = scenario.evaluation
    held_out = assemble(schema, files.read(schema, beside, base), last_only=beside.windows == "last", held_out=True)
    if schema.normalisation == "fleet":
        statistics = normalisation(dataset.sums)
        dataset, held_out = dataset.normalised(statistics), held_out.normalised(statistics)
    ends = np.cumsum([len(series.values) for series in reading.series])
    of_series = np.searchsorted(ends, dataset.train.starts, side="right")
    return Data(dataset.train, held_out.test, Holdings(of_series, classes_of(schema, dataset.train)))


def classes_of(schema: DataSchema, windows: Windows) -> Indices | None:
    """The class of each window, where the task's first target is one for a whole window."""
    target = schema.targets[0]
    if not (isinstance(target, ColumnTarget) and target.classes and not target.per_step):
        return None
    return np.asarray(windows.targets[windows.starts + windows.window - 1, 0], np.int64)


class Workers:
    """A pool; use as a context manager. A mistake in a job is raised where its result is asked for.

    Attributes:
        scenario, bundle: what all of them work on.
        data: what the fleet holds together.

    Raises:
        FieldfoldError: when the data is not what the task needs.
    """

    def __init__(self, scenario: Scenario, base: Path, processes: int | None = None) -> None:
        self.scenario = scenario
        self.bundle = bundle = Bundle.read(base / scenario.task)
        self.data = read(scenario, bundle, base)
        self._pool = ProcessPoolExecutor(
            processes or len(os.sched_getaffinity(0)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(scenario, bundle.data, base),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def train(self, run: Run) -> Future[Trained]:
        """A local run, encoded."""
        return self._pool.submit(_train, run)

    def score(self, parameters: Vector) -> Future[Scores]:
        """How good a model is."""
        return self._pool.submit(_score, parameters)


class _Desk(NamedTuple):
    """What a process holds."""

    scenario: Scenario
    bundle: Bundle
    data: Data
    runtime: Runtime
    rare: Windows | None


class _NoGate:
    """Nothing holds a run up."""

    def passes(self, _wait_s: float) -> bool:
        return True

    def stepped(self, _step: int, _of: int, _loss: float) -> None:
        pass


_desk: list[_Desk | FieldfoldError] = []


def _begin(scenario: Scenario, bundle_data: bytes, base: Path) -> None:
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    try:
        bundle = Bundle.from_bytes(bundle_data)
        data = read(scenario, bundle, base)
        runtime = open_runtime(bundle, RuntimeSettings(threads=1))
        _desk.append(_Desk(scenario, bundle, data, runtime, _rare(scenario, bundle, data)))
    except FieldfoldError as error:
        _desk.append(error)


def _end_with_the_caller() -> None:
    """A pool whose owner was killed would wait for work for ever."""
    if (caller := multiprocessing.parent_process()) is not None:
        caller.join()
        os._exit(1)


def _rare(scenario: Scenario, bundle: Bundle, data: Data) -> Windows | None:
    found = classes_of(bundle.manifest.data, data.held_out)
    if not scenario.partition.slow_only or found is None:
        return None
    first = int(found.max()) + 1 - scenario.partition.slow_only
    return replace(data.held_out, starts=data.held_out.starts[found >= first])


def _at_desk() -> _Desk:
    if isinstance(desk := _desk[0], FieldfoldError):
        raise desk
    return desk


def encoded(scenario: Scenario, bundle: Bundle, delta: Vector, residual: Vector | None, seed: int) -> Trained:
    """A delta as it is sent."""
    layout = bundle.manifest.layout
    feedback = ErrorFeedback.start(layout.num_params, num_trained=layout.num_trained)
    if residual is not None:
        feedback = ErrorFeedback(residual, layout.num_trained)
    sent = feedback.encode(delta, scenario.profile, seed=seed)
    residual = sent.feedback.residual
    return Trained(sent.payload, residual if residual.any() else None, sent.norm, math.nan, None)


def _train(run: Run) -> Trained:
    desk = _at_desk()
    manifest, scenario = desk.bundle.manifest, desk.scenario
    windows = replace(desk.data.train, starts=desk.data.train.starts[run.windows])
    if run.relabelled:
        windows = replace(windows, targets=_relabelled(desk, windows))
    plan = Plan(
        num_steps=run.steps,
        longest_s=0.0,
        batch_size=manifest.batch_size,
        learning_rate=scenario.local_learning_rate or manifest.learning_rate.at(run.base_version),
        proximal=manifest.proximal,
        clip_norm=manifest.clip_norm,
        seed=run.seed,
        keep_optimizer=False,
        max_steps_per_s=0.0,
        noise_std=manifest.privacy.norm * manifest.privacy.noise_multiplier if manifest.privacy else 0.0,
        num_trained=manifest.num_trained,
    )
    result = train_locally(desk.runtime, run.base, desk.bundle.initial_local(), windows, plan, _NoGate())
    if result is None:
        raise FieldfoldError("a local run was given up")
    sent = encoded(scenario, desk.bundle, result.delta, run.residual, run.seed)
    return sent._replace(loss=_loss_before(desk, run.base, windows), delta=result.delta if run.tell else None)


def _loss_before(desk: _Desk, base: Vector, windows: Windows) -> float:
    """On some of the windows that the node learns from, since a part of a small benchmark is too few to hold out."""
    stride = -(-len(windows) // MOST_SCORED)
    return desk.runtime.evaluate(base, replace(windows, starts=windows.starts[::stride]).all()).loss


def _relabelled(desk: _Desk, windows: Windows) -> Targets:
    """Classes moved on by one; numbers turned about the middle of their range."""
    targets = windows.targets
    if desk.data.holdings.classes is not None:
        return np.mod(targets + 1, np.float32(desk.data.holdings.classes.max() + 1))
    turned: Targets = np.nanmin(targets) + np.nanmax(targets) - targets
    return turned


def _score(parameters: Vector) -> Scores:
    desk = _at_desk()
    metric = desk.bundle.manifest.metrics[0].name

    def of(windows: Windows) -> float:
        return desk.runtime.evaluate(parameters, windows.all()).metrics[metric]

    return Scores(of(desk.data.held_out), None if desk.rare is None else of(desk.rare))
