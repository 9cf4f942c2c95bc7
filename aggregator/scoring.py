"""Which version is scored on held-out data, and what becomes of the scores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from aggregator.evaluation import Evaluator, Scored, Unscored, find_fault
from aggregator.federation import Federation
from fieldfold.sensors.source import DataConfig

log = logging.getLogger(__name__)


class Scoring:
    """Always of the newest version, by an evaluator of its task.

    Args:
        data: held-out; without it there are no scores.
        report: is given what the evaluator's thread has found, for `take`.

    Attributes:
        trouble: why there are no scores, where some are wanted; empty otherwise.
    """

    def __init__(
        self,
        data: DataConfig | None,
        base: Path,
        federation: Federation,
        report: Callable[[Scored | Unscored], None],
    ) -> None:
        self._data, self._base, self._federation, self._report = data, base, federation, report
        self._evaluator: Evaluator | None = None
        self._submitted: tuple[str, int] | None = None
        self.trouble = ""

    def look_for_faults(self) -> None:
        """Before there is a model, so that a mistake in the settings is heard of at the start."""
        if self._data is not None and self._federation.bundle is not None:
            self._note(find_fault(self._federation.bundle, self._data, self._base))

    def submit_newest(self) -> None:
        """Hands the newest version to the evaluator, if it has not got it."""
        model = self._federation.model
        if model is None or self._data is None or (model.task, model.version) == self._submitted:
            return
        self._submitted = (model.task, model.version)
        if self._evaluator is not None and self._evaluator.task != model.task:
            self._evaluator.stop()
            self._evaluator = None
        if self._evaluator is None:
            normalisation = self._federation.normalisation
            self._evaluator = Evaluator(model.bundle, normalisation, self._data, self._base, self._report)
        self._evaluator.submit(model.version, model.released)

    def take(self, found: Scored | Unscored) -> None:
        """What the evaluator has found."""
        if isinstance(found, Unscored):
            self._note(found.reason)
            return
        self._federation.note_score(found.task, found.version, found.score)
        self.trouble = ""
        log.debug("version %d scores %.4g on held-out data", found.version, found.score)

    def stop(self) -> None:
        """Ends the evaluator's thread."""
        if self._evaluator is not None:
            self._evaluator.stop()

    def _note(self, reason: str) -> None:
        """Says once why held-out evaluation is off; an empty reason says that it is not."""
        if reason and reason != self.trouble:
            log.error("held-out evaluation is off: %s", reason)
        self.trouble = reason
