"""What of task and model stands at the broker: live deltas, slots, snapshots, manifests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from aggregator.config import ReleaseConfig
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import VersionRecord
from aggregator.model import GlobalModel
from aggregator.release import publish, way
from aggregator.release.model import snapshot
from aggregator.release.shelf import Publication, Shelf
from fieldfold.errors import StoreError
from fieldfold.link.outgoing import Outgoing
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.trust.signing import Signer
from fieldfold.wire.chunks import chunk_size, object_digest
from fieldfold.wire.messages import SnapshotPlace
from fieldfold.wire.topics import Topics

log = logging.getLogger(__name__)
MANIFEST_EVERY_S = 1.0
"""Followers need only live deltas; the manifest is for those who come back, and may lag by this much."""
SNAPSHOT_SLOTS = 2


class Publisher:
    """Publishes what is in the ledger already, and clears what nobody needs any more.

    Args:
        config: how versions are published.
        ledger: holds them.
        topics: the federation's.
        outgoing: takes what is published.
        signer: signs it.
        issue: gives numbers that only rise.
        message_bytes: the largest payload that the broker takes at present.
    """

    def __init__(  # noqa: PLR0913 - what it needs to publish
        self,
        config: ReleaseConfig,
        ledger: Ledger,
        topics: Topics,
        outgoing: Outgoing,
        *,
        signer: Signer,
        issue: Callable[[], int],
        message_bytes: Callable[[], int],
    ) -> None:
        self._ledger, self._topics, self._outgoing = ledger, topics, outgoing
        self._signer, self._issue, self._message_bytes = signer, issue, message_bytes
        self._span = config.snapshot_every
        self.delta_slots = 2 * config.snapshot_every
        self._shelf = Shelf(ledger.shelf())
        self._written = dict(self._shelf.most)
        self._snapshot_at = self._bytes_since = 0
        self._snapshot: SnapshotPlace | None = None
        self._deltas_from = self._deltas_kept_from = 0
        self._manifest_due = False
        self._manifest_at = 0.0

    # -- task --------------------------------------------------------------------------------------------------------

    def show_task(self, bundle: Bundle) -> None:
        """Publishes the bundle."""
        shelf, chunk_bytes = self._shelf, self._chunk_bytes
        self._retain(
            publish.task_messages(
                shelf, self._topics, self._signer, bundle, chunk_bytes=chunk_bytes, issued=self._issue()
            )
        )

    def clear_model(self, bundle: Bundle) -> None:
        """Takes away all that belongs to another task, whose model is not this one's."""
        self._snapshot_at, self._bytes_since, self._snapshot = 0, 0, None
        self._deltas_from = self._deltas_kept_from = 0
        self._manifest_due = False
        for prefix in self._shelf.others({self._topics.bundle(bundle.digest)}):
            self._retain(self._shelf.clear(prefix))
        self._retain([Publication(self._topics.model_manifest, b"")])

    # -- model -------------------------------------------------------------------------------------------------------

    def show_model(self, model: GlobalModel) -> None:
        """Publishes all that leads to the newest version, for a broker that may have lost it."""
        self._show_way(model)
        for version in range(self._deltas_from + 1, model.version + 1):
            record = self._ledger.version(model.task, version)
            if record is not None:
                self._place_delta(version, record.delta, publish.seal_of(self._topics, self._signer, record.delta))
        wanted = {self._delta_prefix(version) for version in range(self._deltas_from + 1, model.version + 1)}
        wanted |= {self._topics.bundle(model.task), *map(self._topics.snapshot, range(SNAPSHOT_SLOTS))}
        for prefix in self._shelf.others(wanted):
            self._retain(self._shelf.clear(prefix))
        self._deltas_kept_from = self._deltas_from
        self.note_change(at_once=True)

    def show_versions(self, model: GlobalModel, records: Sequence[VersionRecord]) -> None:
        """Publishes new versions, to followers first."""
        seals = [publish.seal_of(self._topics, self._signer, record.delta) for record in records]
        for record, seal in zip(records, seals, strict=True):
            for message in publish.live_messages(self._topics, record.delta, seal, self._chunk_bytes):
                self._outgoing.send(message.topic, message.payload)
        for record, seal in zip(records, seals, strict=True):
            self._place_delta(record.version, record.delta, seal)
            self._bytes_since += len(record.delta)
        if way.snapshot_is_due(
            self._bytes_since, model.version - self._snapshot_at, model.num_params, at_most=self._span
        ):
            self._show_way(model)
        self.note_change()

    def _place_delta(self, version: int, delta: bytes, seal: bytes) -> None:
        self._retain(self._shelf.put(self._delta_prefix(version), delta, self._chunk_bytes, seal))

    def _delta_prefix(self, version: int) -> str:
        return self._topics.delta(version % self.delta_slots)

    def _show_way(self, model: GlobalModel) -> None:
        """The cheapest way to the newest version: its snapshot, or the deltas that led there."""
        version = self._snapshot_at = model.version
        self._bytes_since = 0
        whole = snapshot(model.released, version, model.run)
        sizes = self._ledger.delta_sizes(model.task, version - self._span, version)
        costs = {each: way.on_the_wire(size, self._chunk_bytes) for each, size in sizes.items()}
        cost = way.on_the_wire(len(whole), self._chunk_bytes)
        oldest, self._deltas_from = self._deltas_from, way.deltas_from(costs, version, cost)
        if self._deltas_from == 0:
            return
        slot = 0 if self._snapshot is None else (self._snapshot.slot + 1) % SNAPSHOT_SLOTS
        self._snapshot = SnapshotPlace(version=version, slot=slot, digest=object_digest(whole), size_bytes=len(whole))
        self._retain(self._shelf.put(self._topics.snapshot(slot), whole, self._chunk_bytes))
        # who has just begun to read by the former manifest may still finish
        for former in range(max(self._deltas_kept_from, version - self.delta_slots) + 1, oldest + 1):
            self._retain(self._shelf.clear(self._delta_prefix(former)))
        self._deltas_kept_from = oldest

    # -- manifest ----------------------------------------------------------------------------------------------------

    def note_change(self, *, at_once: bool = False) -> None:
        """The manifest is to be published anew, soon."""
        self._manifest_due = True
        if at_once:
            self._manifest_at = 0.0

    def show_manifest(self, model: GlobalModel, normalisation: Normalisation | None, score: float | None) -> None:
        """Publishes the manifest when it has changed, at most once in MANIFEST_EVERY_S."""
        now = time.monotonic()
        if not self._manifest_due or now - self._manifest_at < MANIFEST_EVERY_S:
            return
        issued = self._issue()
        self._manifest_due, self._manifest_at = False, now
        message = publish.manifest_message(
            self._topics,
            self._signer,
            issued=issued,
            task=model.task,
            run=model.run,
            version=model.version,
            parameters=model.digest,
            deltas_from=self._deltas_from,
            delta_slots=self.delta_slots,
            snapshot=self._snapshot,
            normalisation=normalisation,
            chunk_bytes=self._chunk_bytes,
            score=score,
        )
        self._retain([message])

    @property
    def _chunk_bytes(self) -> int:
        return chunk_size(self._message_bytes())

    def _retain(self, messages: Iterable[Publication]) -> None:
        publications = list(messages)
        if self._shelf.most != self._written:
            self._write_shelf()
        for message in publications:
            self._outgoing.retain(message.topic, message.payload)

    def _write_shelf(self) -> None:
        """Before it is true: after a crash more is cleared than lies there, never less."""
        try:
            with self._ledger.transaction():
                self._ledger.put_shelf(self._shelf.most)
            self._written = dict(self._shelf.most)
        except StoreError as error:
            log.warning("what is published now may not be cleared later: %s", error)
