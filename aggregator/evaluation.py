"""Scores released versions on held-out data, in a thread of its own; only the newest waiting version is looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from fieldfold.errors import DataError, FieldfoldError
from fieldfold.params import Vector
from fieldfold.sensors.dataset import load
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task import open_runtime
from fieldfold.task.bundle import Bundle


class Scored(msgspec.Struct, frozen=True):
    """How a version did."""

    task: str
    version: int
    score: float


class Unscored(msgspec.Struct, frozen=True):
    """Why there are no scores."""

    reason: str


class Evaluator:
    """Loads data and runtime in its thread at the first version, so that nothing waits for it.

    Args:
        report: called from the thread with each result.
    """

    def __init__(
        self,
        bundle: Bundle,
        normalisation: Normalisation | None,
        config: DataConfig,
        base: Path,
        report: Callable[[Scored | Unscored], None],
    ) -> None:
        self.task = bundle.digest
        self._bundle, self._normalisation, self._config, self._base = bundle, normalisation, config, base
        self._report = report
        self._changed = threading.Condition()
        self._waiting: tuple[int, Vector] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="evaluation", daemon=True)
        self._thread.start()

    def submit(self, version: int, parameters: Vector) -> None:
        """Asks for a score; replaces a version that still waits."""
        with self._changed:
            self._waiting = (version, parameters)
            self._changed.notify()

    def stop(self) -> None:
        """Ends after the evaluation under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        try:
            _require_whole_model(self._bundle)
            dataset = load(self._bundle.manifest.data, self._config, self._base, held_out=True)
            if self._normalisation is not None:
                dataset = dataset.normalised(self._normalisation)
            batch = dataset.test.all()
            runtime = open_runtime(self._bundle)
            while (job := self._next()) is not None:
                evaluation = runtime.evaluate(job[1], batch)
                score = evaluation.metrics[self._bundle.manifest.metrics[0].name]
                self._report(Scored(self._bundle.digest, job[0], score))
        except FieldfoldError as error:
            self._report(Unscored(str(error)))

    def _next(self) -> tuple[int, Vector] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
            job, self._waiting = self._waiting, None
            return None if self._stopping else job


def _require_whole_model(bundle: Bundle) -> None:
    if local := bundle.manifest.local.tensors:
        raise DataError(
            f"the task keeps {local[0].name} on the gateways: only they hold a whole model to evaluate",
            "look at the scores that they report",
        )


def find_fault(bundle: Bundle, config: DataConfig, base: Path) -> str:
    """What keeps held-out data from being used, empty when nothing does: said at the start, not hours later."""
    try:
        _require_whole_model(bundle)
        load(bundle.manifest.data, config, base, held_out=True)
    except FieldfoldError as error:
        return str(error)
    return ""
