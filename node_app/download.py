"""Keeps the task and the model of this node up to date with what the aggregator has released."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from fieldfold.errors import BundleError, WireError
from fieldfold.link.session import Link
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import MAX_BUNDLE_BYTES, Bundle
from fieldfold.wire.messages import ModelManifest, TaskManifest, read
from fieldfold.wire.topics import Topics
from node_app.follow import Fetch, Follower, Model
from node_app.store import Store

log = logging.getLogger(__name__)
FETCH_PATIENCE_S = 10.0
"""A fetch that stands still this long is begun again: its topic may have been overwritten while it was read."""


class Download:
    """Owned by the daemon's thread.

    Args:
        on_task: called with a new task and the follower of its model.
        on_model: called when the model, or what is known of it, has moved.

    Attributes:
        bundle: the present task; None before the first.
        follower: follows its model.
        trouble: why an announced task is refused.
    """

    def __init__(
        self,
        link: Link,
        topics: Topics,
        store: Store,
        on_task: Callable[[Bundle, Follower], None],
        on_model: Callable[[], None],
    ) -> None:
        self._link, self._topics, self._store = link, topics, store
        self._on_task, self._on_model = on_task, on_model
        self.bundle: Bundle | None = None
        self.follower: Follower | None = None
        self.trouble = ""
        self._announced: TaskManifest | None = None
        self._fetch: Fetch | None = None
        self._moved_at = 0.0

    def restore(self) -> None:
        """Begins with the task and the model that the store holds, broker or no broker."""
        data = self._store.bundle()
        if data is None:
            return
        try:
            bundle = Bundle.from_bytes(data)
        except BundleError as error:
            log.error("the stored bundle is of no use, another is fetched: %s", error)
            return
        follower = self._begin(bundle)
        kept = self._store.vector("global", bundle.digest)
        packed = self._store.fact(f"normalisation/{bundle.digest}")
        if kept is not None:
            normalisation = msgspec.msgpack.decode(packed, type=Normalisation) if packed else None
            follower.start_from(Model(kept.version, kept.values, normalisation))

    def subscribe(self) -> None:
        """Asks for what is released from now on."""
        for topic in (self._topics.task_manifest, self._topics.model_manifest, self._topics.every_delta):
            self._link.subscribe(topic)

    def ask_again(self) -> None:
        """After a start: where the broker kept our session, what it retains comes only to a new subscription."""
        self._subscribe_anew(self._topics.task_manifest, self._topics.model_manifest)

    def take(self, topic: str, payload: bytes) -> None:
        """A message from a topic that `subscribe`, or a fetch, asked for; others are passed over.

        Raises:
            WireError: when it is damaged.
            BundleError: when it completes a bundle that is of no use.
        """
        if self._fetch is not None and topic.startswith(self._fetch.topic_filter.removesuffix("+")):
            self._take_chunk(self._fetch, payload)
        elif topic == self._topics.task_manifest:
            self._take_task(read(TaskManifest, payload))
        elif self.follower is not None and topic == self._topics.model_manifest:
            self.follower.take_manifest(read(ModelManifest, payload))
            self._on_model()
        elif self.follower is not None and topic.startswith(self._topics.every_delta.removesuffix("+/+")):
            self.follower.take_delta(payload)
            self._on_model()

    def tick(self) -> None:
        """Fetches what is missing, and again what stands still."""
        stuck = time.monotonic() - self._moved_at > FETCH_PATIENCE_S
        if not self._link.is_up:
            return
        follower = self.follower
        if self._announced is not None:
            if stuck:
                self._fetch_bundle(self._announced)
        elif follower is not None and follower.manifest is not None:
            if follower.wants_snapshot and (self._fetch is None or stuck):
                self._fetch_snapshot(follower.manifest)
            elif follower.has_gap and self._fetch is None and stuck:
                self._moved_at = time.monotonic()
                self._subscribe_anew(self._topics.every_delta)

    def _begin(self, bundle: Bundle) -> Follower:
        manifest = bundle.manifest
        follower = Follower(bundle.digest, manifest.layout.num_params, len(manifest.data.features))
        self.bundle, self.follower, self.trouble = bundle, follower, ""
        log.info("task %s (%s), %d parameters", manifest.name, bundle.digest[:16], manifest.layout.num_params)
        self._on_task(bundle, follower)
        return follower

    def _take_task(self, manifest: TaskManifest) -> None:
        if self._announced == manifest and self._fetch is not None:
            return
        self._announced = None
        if self.bundle is not None and manifest.digest == self.bundle.digest:
            self.trouble = ""
            return
        if manifest.size_bytes > MAX_BUNDLE_BYTES:
            raise WireError(f"a bundle of {manifest.size_bytes} bytes, at most {MAX_BUNDLE_BYTES} are taken")
        log.info("task %s is announced, fetching %d bytes", manifest.name, manifest.size_bytes)
        self._announced = manifest
        self._fetch_bundle(manifest)

    # -- retained objects --------------------------------------------------------------------------------------------

    def _fetch_bundle(self, manifest: TaskManifest) -> None:
        topic_filter = self._topics.bundle(manifest.digest, "+")
        self._start(Fetch(topic_filter, manifest.digest, manifest.size_bytes, manifest.chunk_bytes))

    def _fetch_snapshot(self, manifest: ModelManifest) -> None:
        topic_filter = self._topics.snapshot(manifest.snapshot_slot, "+")
        size_bytes, chunk_bytes = manifest.snapshot_bytes, manifest.chunk_bytes
        self._start(Fetch(topic_filter, manifest.snapshot_digest, size_bytes, chunk_bytes))

    def _start(self, fetch: Fetch) -> None:
        if self._fetch is not None:
            self._link.unsubscribe(self._fetch.topic_filter)
        self._fetch, self._moved_at = fetch, time.monotonic()
        self._link.subscribe(fetch.topic_filter)

    def _take_chunk(self, fetch: Fetch, payload: bytes) -> None:
        self._moved_at = time.monotonic()
        data = fetch.take(payload)
        if data is None:
            return
        self._link.unsubscribe(fetch.topic_filter)
        self._fetch = None
        if self._announced is not None:
            self._take_bundle(fetch.digest, data)
        elif self.follower is not None:
            self.follower.take_snapshot(data)
            self._on_model()
            if self.follower.has_gap:
                # Deltas that were acknowledged before a restart come only to a new subscription.
                self._subscribe_anew(self._topics.every_delta)

    def _take_bundle(self, digest: str, data: bytes) -> None:
        self._announced = None
        try:
            bundle = Bundle.from_bytes(data)
        except BundleError as error:
            self.trouble = f"the task {digest[:16]} is refused: {error}"
            raise
        self._store.put_bundle(digest, data)
        self._begin(bundle)
        # The manifest and the deltas were passed over while there was no task: have them sent again.
        self._subscribe_anew(self._topics.model_manifest, self._topics.every_delta)

    def _subscribe_anew(self, *topics: str) -> None:
        """Has the broker send again what it retains there."""
        for topic in topics:
            self._link.unsubscribe(topic)
            self._link.subscribe(topic)
