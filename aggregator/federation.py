"""The present task, its normalisation and its model, and what of them is shown to the nodes."""

from __future__ import annotations

import copy
import logging
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from aggregator.config import AggregatorConfig
from aggregator.intake import statistics
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision, TaskRecord
from aggregator.model import FoldSettings, GlobalModel
from aggregator.publisher import Publisher
from fieldfold.errors import DataError
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import Statistics

log = logging.getLogger(__name__)


def draw_run_id() -> str:
    """A name for a new run, in hex, that no other run has."""
    return secrets.token_hex(8)


class Federation:
    """Owns task, normalisation and model; writes them to the ledger first and shows them afterwards.

    Attributes:
        bundle: the present task, None before the first was published.
        model: None until the task's normalisation is settled.
        score: newest held-out score as (version, value).
    """

    def __init__(
        self,
        config: AggregatorConfig,
        ledger: Ledger,
        publisher: Publisher,
        draw_run_id: Callable[[], str] = draw_run_id,
    ) -> None:
        self._config, self._ledger, self._publisher = config, ledger, publisher
        self._draw_run_id = draw_run_id
        self.bundle: Bundle | None = None
        self.normalisation: Normalisation | None = None
        self.model: GlobalModel | None = None
        self.score: tuple[int, float] | None = None
        self.statistics_from = 0
        self._statistics_since: float | None = None

    # -- coming up ---------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Takes up what the ledger holds; versions that a crash kept from being written are written now.

        Raises:
            StoreError: when the ledger does not replay.
        """
        record = self._ledger.task()
        if record is None:
            return
        self.bundle = Bundle.from_bytes(record.bundle)
        stored = self._ledger.normalisation(record.digest)
        if stored is not None:
            self.normalisation = msgspec.msgpack.decode(stored, type=Normalisation)
        self._count_statistics()
        if self._ledger.checkpoint(record.digest) is None:
            return
        model = self._new_model(self.bundle)
        with self._ledger.transaction():
            replayed = model.restore(self._ledger)
        self.model = model
        log.info("version %d restored, %d contributions replayed", model.version, replayed)

    def _new_model(self, bundle: Bundle) -> GlobalModel:
        return GlobalModel(bundle, FoldSettings(self._config.fold, self._config.release.profile))

    # -- the task and its statistics ---------------------------------------------------------------------------------

    def set_task(self, bundle: Bundle) -> None:
        """Makes `bundle` the present task; nodes that see it begin anew with it."""
        before = f"{self.bundle.manifest.name} ({self.bundle.digest[:16]})" if self.bundle else "none"
        with self._ledger.transaction():
            self._ledger.add_task(TaskRecord(bundle.digest, bundle.manifest.name, bundle.data))
        log.info("task %s (%s) replaces %s", bundle.manifest.name, bundle.digest[:16], before)
        self.bundle, self.model, self.normalisation, self.score = bundle, None, None, None
        self.statistics_from, self._statistics_since = 0, None
        self.restore()
        self._publisher.clear_model(bundle)
        self.show_everything()

    def take_statistics(self, node: str, message: Statistics) -> None:
        """Keeps a node's sums. Within a transaction.

        Raises:
            DataError: when they cannot be sums of any data.
        """
        if self.bundle is None or message.task != self.bundle.digest:
            raise DataError(f"{node} sent statistics for another task", "it takes the present task by itself")
        if self.normalisation is not None:
            return
        packed = statistics.accept(message, len(self.bundle.manifest.data.numeric))
        self._ledger.put_statistics(self.bundle.digest, node, packed)
        self._count_statistics()

    def _count_statistics(self) -> None:
        if self.bundle is None or self.normalisation is not None:
            return
        self.statistics_from = len(self._ledger.statistics(self.bundle.digest))
        if self.statistics_from and self._statistics_since is None:
            self._statistics_since = time.monotonic()

    def settle_normalisation(self) -> None:
        """Releases normalisation and version 0, together, when enough nodes have sent their sums.

        Raises:
            StoreError: when they cannot be written; to be tried again.
        """
        if self.bundle is None or self.model is not None:
            return
        if self.bundle.manifest.data.normalisation == "none":
            self._begin(self.bundle, None, 0)
            return
        if self._statistics_since is None:
            return
        waited_s = time.monotonic() - self._statistics_since
        if not statistics.is_due(self.statistics_from, waited_s, self._config.normalisation):
            return
        sums = self._ledger.statistics(self.bundle.digest)
        if not sums:
            return
        self._begin(self.bundle, statistics.fuse(sums), len(sums))
        log.info("normalisation settled from the statistics of %d nodes", len(sums))

    def _begin(self, bundle: Bundle, normalisation: Normalisation | None, nodes: int) -> None:
        """Writes and shows version 0."""
        model = self._new_model(bundle)
        with self._ledger.transaction():
            if normalisation is not None:
                self._ledger.put_normalisation(bundle.digest, msgspec.msgpack.encode(normalisation), nodes)
            model.begin(self._ledger, self._draw_run_id())
        self.model, self.normalisation, self._statistics_since = model, normalisation, None
        self._publisher.show_model(model)
        self.show_manifest()

    def checkpoint(self) -> None:
        """At a clean end: the next start need not replay.

        Raises:
            StoreError: when it cannot be written; nothing is lost by that.
        """
        if self.model is not None:
            with self._ledger.transaction():
                self.model.checkpoint(self._ledger)

    # -- folding and showing -----------------------------------------------------------------------------------------

    def fold(self, fresh: Sequence[Decision] = ()) -> bool:
        """Folds what the ledger holds beyond the model and shows what came of it; whether there is a new version.

        Args:
            fresh: some of that, as it was written, so that it need not be read again.

        Raises:
            StoreError: when it cannot be written; the model is as before, to be tried again.
        """
        if self.model is None:
            return False
        before, model = self.model, copy.copy(self.model)
        with self._ledger.transaction():
            versions = [record for record in model.catch_up(self._ledger, fresh) if record is not None]
        self.model = model
        if model.version == before.version:
            return False
        self._publisher.show_versions(model, versions)
        return True

    def show_everything(self) -> None:
        """After a connection: the broker may have lost what it retained."""
        if self.bundle is None:
            return
        self._publisher.show_task(self.bundle)
        if self.model is None:
            self._publisher.clear_model(self.bundle)
        else:
            self._publisher.show_model(self.model)
            self.show_manifest()

    def show_manifest(self) -> None:
        """Publishes the manifest when it has changed, not too often."""
        if self.model is not None:
            self._publisher.show_manifest(self.model, self.normalisation, self.score[1] if self.score else None)

    def note_score(self, task: str, version: int, score: float) -> None:
        """Writes down how a version did on held-out data."""
        if self.model is None or task != self.model.task:
            return
        with self._ledger.transaction():
            self._ledger.put_score(task, version, score)
        self.score = (version, score)
        self._publisher.note_change()
