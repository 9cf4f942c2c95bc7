"""The present task, its normalisation and its model, and what of them is shown to the nodes."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from aggregator.config import AggregatorConfig
from aggregator.intake import statistics
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import TaskRecord
from aggregator.model import GlobalModel
from aggregator.release import publish
from aggregator.release.model import snapshot
from fieldfold.errors import DataError
from fieldfold.link.outgoing import Outgoing
from fieldfold.params import digest, from_bytes
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import chunk_size
from fieldfold.wire.messages import Statistics
from fieldfold.wire.topics import Topics

log = logging.getLogger(__name__)
MANIFEST_EVERY_S = 1.0
"""Followers need only deltas; the manifest is for newcomers, and may lag by this much."""


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
        topics: Topics,
        outgoing: Outgoing,
        message_bytes: Callable[[], int],
    ) -> None:
        self._config = config
        self._message_bytes = message_bytes
        self._ledger = ledger
        self._topics = topics
        self._outgoing = outgoing
        self.bundle: Bundle | None = None
        self.normalisation: Normalisation | None = None
        self.model: GlobalModel | None = None
        self.score: tuple[int, float] | None = None
        self.statistics_from = 0
        self._statistics_since: float | None = None
        self._snapshot: publish.PublishedSnapshot | None = None
        self._manifest_due = False
        self._manifest_at = 0.0

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
        release = self._config.release
        return GlobalModel(bundle, self._config.fold, release.profile, release.snapshot_every)

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
        self.show_task()
        self.show_model()

    def take_statistics(self, node: str, message: Statistics) -> None:
        """Keeps a node's sums. Within a transaction.

        Raises:
            DataError: when they cannot be sums of any data.
        """
        if self.bundle is None or message.task != self.bundle.digest:
            raise DataError(f"{node} sent statistics for another task", "it takes the present task by itself")
        if self.normalisation is not None:
            return
        packed = statistics.accept(message, len(self.bundle.manifest.data.features))
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
                self._ledger.put_normalisation(bundle.digest, publish.normalisation_bytes(normalisation), nodes)
            model.begin(self._ledger)
        self.model, self.normalisation, self._statistics_since = model, normalisation, None
        self.show_model()

    def checkpoint(self) -> None:
        """At a clean end: the next start need not replay, and may do so with other settings.

        Raises:
            StoreError: when it cannot be written; nothing is lost by that.
        """
        if self.model is not None:
            with self._ledger.transaction():
                self.model.checkpoint(self._ledger)

    # -- folding and showing -----------------------------------------------------------------------------------------

    def fold(self) -> bool:
        """Folds what the ledger holds beyond the model and shows what came of it; whether there is a new version.

        Raises:
            StoreError: when it cannot be written; the model is as before, to be tried again.
        """
        if self.model is None:
            return False
        before, model = self.model, copy.copy(self.model)
        with self._ledger.transaction():
            folded = model.catch_up(self._ledger)
        self.model = model
        for record in folded:
            if record is not None:
                self._show_delta(record.version, record.delta)
        if model.checkpoint_version != before.checkpoint_version:
            self._show_snapshot(model)
        self._manifest_due |= model.version != before.version
        return model.version != before.version

    def show_everything(self) -> None:
        """After a connection: the broker may have lost what it retained."""
        self.show_task()
        self.show_model()

    def show_task(self) -> None:
        """Publishes the bundle."""
        if self.bundle is not None:
            self._retain(publish.task_messages(self._topics, self.bundle, self._chunk_bytes))

    def show_model(self) -> None:
        """Publishes snapshot, the deltas after it, and the manifest."""
        model = self.model
        if model is None:
            return
        self._show_snapshot(model)
        for version in range(model.checkpoint_version + 1, model.version + 1):
            record = self._ledger.version(model.task, version)
            if record is not None:
                self._show_delta(version, record.delta)
        self._manifest_due = True
        self._manifest_at = 0.0
        self.show_manifest()

    def _show_delta(self, version: int, delta: bytes) -> None:
        every = self._config.release.snapshot_every
        self._retain(publish.delta_messages(self._topics, version, delta, every, self._chunk_bytes))

    def _show_snapshot(self, model: GlobalModel) -> None:
        """Publishes the model at the newest checkpoint."""
        point = self._ledger.checkpoint(model.task)
        if point is None:
            return
        released = from_bytes(point.released)
        whole = snapshot(released, point.version, model.task, self.normalisation)
        every = self._config.release.snapshot_every
        self._snapshot = publish.describe_snapshot(point.version, whole, every)
        self._retain(publish.snapshot_messages(self._topics, point.version, whole, every, self._chunk_bytes))

    def show_manifest(self) -> None:
        """Publishes the manifest when it has changed, at most once in MANIFEST_EVERY_S."""
        model, now = self.model, time.monotonic()
        if model is None or self._snapshot is None or not self._manifest_due:
            return
        if now - self._manifest_at < MANIFEST_EVERY_S:
            return
        self._manifest_due, self._manifest_at = False, now
        message = publish.manifest_message(
            self._topics,
            task=model.task,
            version=model.version,
            parameters=digest(model.released),
            snapshot=self._snapshot,
            chunk_bytes=self._chunk_bytes,
            score=self.score[1] if self.score else None,
        )
        self._retain([message])

    def note_score(self, task: str, version: int, score: float) -> None:
        """Writes down how a version did on held-out data."""
        if self.model is None or task != self.model.task:
            return
        with self._ledger.transaction():
            self._ledger.put_score(task, version, score)
        self.score = (version, score)
        self._manifest_due = True

    @property
    def _chunk_bytes(self) -> int:
        return chunk_size(self._message_bytes())

    def _retain(self, messages: Iterable[publish.Publication]) -> None:
        for message in messages:
            self._outgoing.retain(message.topic, message.payload)
