"""Keeps the task and the model of this node up to date with what the aggregator has released.

Who follows gets the live deltas and nothing else. Who comes back, or has missed something, reads the model manifest
and then asks, chunk by chunk, for what is missing and no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from fieldfold.errors import BundleError, StoreError, WireError
from fieldfold.link.session import Link
from fieldfold.task.bundle import MAX_BUNDLE_BYTES, Bundle
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import Chunk, ModelManifest, SnapshotPlace, TaskManifest, unpack
from fieldfold.wire.topics import Topics
from node_app.counterpart import Counterpart
from node_app.fetch import Announced, Fetch, Wanted
from node_app.follow import MAX_DELTA_BYTES, Follower, Model
from node_app.resumption import Resumption
from node_app.store import Store, StoredVector

log = logging.getLogger(__name__)
WINDOW = 8
"""Chunks that are asked for at once; one that arrives makes way for the next."""
FETCH_PATIENCE_S = 5.0
"""A fetch that stands still this long asks the manifest again: what it reads may have been cleared."""
LONGEST_FETCH_PATIENCE_S = 80.0
"""Patience doubles while nothing comes: on a slow link a single chunk may take a minute."""
KEEP_PIECES_EVERY_S = 5.0
"""What has come of an object is written to disk this often; on a fast link it is complete before that."""
GAP_PATIENCE_S = 2.0
"""Where a delta is missing, the manifest is read when the model has stood still this long: it may lag by a second."""
SILENCE_S, LONGEST_SILENCE_S = 10.0, 600.0
"""Who hears of no newer version for so long subscribes anew, and then after twice as long each time: a broker may
have lost a subscription, and nobody would be told."""


class Download:
    """Owned by the daemon's thread.

    Args:
        link: to the broker.
        topics: the federation's.
        store: keeps task and model.
        counterpart: knows what the aggregator has signed.
        on_task: called with a new task and the follower of its model.
        on_model: called when the model, or what is known of it, has moved.

    Attributes:
        bundle: the present task; None before the first.
        follower: follows its model.
        trouble: why an announced task is refused.
        float32_down: what the released versions that were taken would have been uncompressed.
    """

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        link: Link,
        topics: Topics,
        store: Store,
        counterpart: Counterpart,
        *,
        on_task: Callable[[Bundle, Follower], None],
        on_model: Callable[[], None],
    ) -> None:
        self._link, self._topics, self._store, self._counterpart = link, topics, store, counterpart
        self._on_task, self._on_model = on_task, on_model
        self.bundle: Bundle | None = None
        self.follower: Follower | None = None
        self.trouble = ""
        self.float32_down = 0
        self._announced: TaskManifest | None = None
        self._resumption = Resumption(store.pieces)
        self._fetches: dict[Wanted, Fetch] = {}
        self._asked: dict[str, Wanted] = {}
        self._looking = True
        self._patience_s, self._silence_s = FETCH_PATIENCE_S, SILENCE_S
        self._pieces_kept_at = time.monotonic()
        self._looked_at = self._heard_at = self._advanced_at = -FETCH_PATIENCE_S

    def restore(self) -> None:
        """Begins with the task, the model and the half-read object that the store holds, broker or no broker."""
        self._fetches = self._resumption.restore()
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
        if kept is not None:
            follower.start_from(Model(kept.run, kept.version, kept.values, kept.normalisation))

    def keep_pieces(self) -> None:
        """Writes to disk what has come of a bundle or a snapshot since this was done last."""
        self._pieces_kept_at = time.monotonic()
        self._resumption.keep(self._fetches)

    def subscribe(self) -> None:
        """Asks for what is released from now on; first of all for the key that it is signed with."""
        self._link.subscribe(self._topics.aggregator_key)
        self._link.subscribe(self._topics.task_manifest)
        self._link.subscribe(self._topics.live_deltas, queued=False)

    def connected(self, *, first: bool) -> None:
        """Catches up with what was released while the link was down."""
        if first:  # where the broker kept our session, what it retains comes only to a new subscription
            self._subscribe_anew(self._topics.aggregator_key, queued=True)
            self._subscribe_anew(self._topics.task_manifest, queued=True)
        for topic in self._asked:
            self._subscribe_anew(topic)
        self._heard_at = time.monotonic()
        self.look()

    @property
    def is_fetching(self) -> bool:
        """Whether a task was announced whose bundle is not here yet."""
        return self._announced is not None

    @property
    def fetching(self) -> str:
        """What is being read, in words, with how much of it is here; empty for nothing."""
        begun = [f"{_named(each)}: {100 * fetch.progress:.0f} %" for each, fetch in list(self._fetches.items())]
        return begun[0] if begun else ""

    def lost(self) -> None:
        """The link is down: what is newest is not known any more."""
        self._looking = True

    def is_newest(self, run: str, version: int) -> bool:
        """Whether no newer version than this one is known, and the broker was asked."""
        follower = self.follower
        if self._looking or follower is None or follower.model is None or follower.has_gap:
            return False
        return follower.model.run == run and follower.model.version <= version

    def look(self) -> None:
        """Reads the model manifest, now or as soon as there is one."""
        self._looking, self._looked_at = True, time.monotonic()
        self._subscribe_anew(self._topics.model_manifest)

    def start_over(self) -> None:
        """The aggregator does not know the model that is here: takes what it has."""
        if self.follower is not None:
            log.warning("the aggregator does not know version %d: going back to what it has", self.follower.newest)
            self.follower.start_over()
            self.look()

    def take(self, topic: str, payload: bytes) -> None:
        """A message from a topic that was asked for; others are passed over.

        Raises:
            WireError: when it is damaged, or not what the aggregator has said.
            BundleError: when it completes a bundle that is of no use.
        """
        if topic in self._asked:
            self._take_chunk(topic, payload)
        elif topic == self._topics.task_manifest:
            self._take_task(self._counterpart.hear(TaskManifest, topic, payload))
        elif topic == self._topics.aggregator_key:
            if self._counterpart.learn(payload):
                self._subscribe_anew(self._topics.task_manifest, queued=True)
                self.look()
        elif self.follower is not None and topic == self._topics.model_manifest:
            if self.follower.take_manifest(self._counterpart.hear(ModelManifest, topic, payload)):
                self._looking = False
                self._link.unsubscribe(topic)
            self._tell()
        elif self.follower is not None and topic.startswith(self._topics.live_deltas.removesuffix("+")):
            self._take_live(self.follower, unpack(Chunk, payload))
        self._go_on()

    def _take_live(self, follower: Follower, chunk: Chunk) -> None:
        if follower.take_chunk(chunk):
            self._advanced_at, self._silence_s = time.monotonic(), SILENCE_S
            self._tell()

    def _tell(self) -> None:
        model = self.follower.model if self.follower else None
        if self.follower is not None and model is not None:
            self.float32_down += self.follower.count_applied() * model.parameters.nbytes
        self._on_model()

    def tick(self) -> None:
        """Looks again when something is missing, or a fetch stands still."""
        if not self._link.is_up:
            return
        now, follower = time.monotonic(), self.follower
        if now - self._pieces_kept_at > KEEP_PIECES_EVERY_S:
            self.keep_pieces()
        if self._asked and now - self._heard_at > self._patience_s:
            self._patience_s = min(2 * self._patience_s, LONGEST_FETCH_PATIENCE_S)
            self._ask_no_more(list(self._fetches))
            self._heard_at = now
            if self._announced is None:
                self.look()
        elif (
            follower is not None and not self._looking and not self._asked and now - self._looked_at > GAP_PATIENCE_S
        ):
            overdue = follower.has_gap and now - self._advanced_at > GAP_PATIENCE_S
            if follower.puzzled or overdue:
                self.look()
        if now - max(self._advanced_at, self._looked_at) > self._silence_s:
            self._silence_s = min(2 * self._silence_s, LONGEST_SILENCE_S)
            self._subscribe_anew(self._topics.live_deltas)
            self.look()
        self._go_on()

    def _begin(self, bundle: Bundle) -> Follower:
        manifest = bundle.manifest
        features = len(manifest.data.numeric)
        follower = Follower(
            bundle.digest,
            manifest.layout.num_params,
            features,
            bundle.initial_parameters,
            self._counterpart.check_delta,
        )
        self.bundle, self.follower, self.trouble = bundle, follower, ""
        log.info("task %s (%s), %d parameters", manifest.name, bundle.digest[:16], manifest.layout.num_params)
        self._on_task(bundle, follower)
        return follower

    def _take_task(self, manifest: TaskManifest) -> None:
        if self.bundle is not None and manifest.digest == self.bundle.digest:
            self._announced, self.trouble = None, ""
            return
        if manifest.size_bytes > MAX_BUNDLE_BYTES:
            raise WireError(f"a bundle of {manifest.size_bytes} bytes, at most {MAX_BUNDLE_BYTES} are taken")
        if self._announced is None or self._announced.digest != manifest.digest:
            log.info("task %s is announced, fetching %d bytes", manifest.name, manifest.size_bytes)
        self._announced = manifest

    # -- retained objects --------------------------------------------------------------------------------------------

    def _wanted(self) -> Iterator[Wanted]:
        """What is to be fetched, in order."""
        follower = self.follower
        if self._announced is not None:
            yield Wanted("bundle", 0, self._announced.digest)
        elif follower is not None and follower.manifest is not None:
            place = follower.manifest.snapshot
            if follower.wants_snapshot and place is not None:
                begun = next((each for each in self._fetches if each.kind == "snapshot"), None)
                # one that is under way is finished while deltas lead on from it
                goes_on = begun is not None and begun.version >= follower.manifest.deltas_from
                yield begun if begun is not None and goes_on else Wanted("snapshot", place.version, place.digest)
            for version in follower.missing_deltas():
                yield Wanted("delta", version, "")

    def _fetch(self, wanted: Wanted) -> Fetch:
        follower, task = self.follower, self._announced
        if wanted.kind == "bundle" and task is not None:
            announced = Announced(task.digest, task.size_bytes, task.chunk_bytes)
            return Fetch(self._topics.bundle(task.digest), announced)
        if follower is None or follower.manifest is None:
            raise RuntimeError("nothing is wanted before there is a manifest")
        manifest = follower.manifest
        if wanted.kind == "snapshot" and manifest.snapshot is not None:
            return self._fetch_snapshot(manifest.snapshot, manifest.chunk_bytes)
        prefix = self._topics.delta(wanted.version % manifest.delta_slots)
        return Fetch(prefix, max_bytes=MAX_DELTA_BYTES, begun=follower.hand_over)

    def _fetch_snapshot(self, place: SnapshotPlace, chunk_bytes: int) -> Fetch:
        log.info("fetching the snapshot of version %d, %d bytes", place.version, place.size_bytes)
        return Fetch(self._topics.snapshot(place.slot), Announced(place.digest, place.size_bytes, chunk_bytes))

    def _go_on(self) -> None:
        """Asks for the next chunks of what is wanted, and for nothing else any more."""
        if not self._link.is_up or (self._looking and self._announced is None):
            return
        wanted = list(self._wanted())
        self._drop([each for each in self._fetches if each not in wanted])
        for each in wanted:
            if len(self._asked) >= WINDOW:
                break
            if each not in self._fetches:
                self._fetches[each] = self._fetch(each)
            for topic in self._fetches[each].missing(WINDOW):
                if topic not in self._asked and len(self._asked) < WINDOW:
                    if not self._asked:
                        self._heard_at = time.monotonic()
                    self._asked[topic] = each
                    self._subscribe_anew(topic)

    def _drop(self, fetches: list[Wanted]) -> None:
        """Gives fetches up, with what was kept of them."""
        self._ask_no_more(fetches)
        for each in fetches:
            del self._fetches[each]
            if each.kind != "delta":
                self._resumption.forget()

    def _ask_no_more(self, fetches: list[Wanted]) -> None:
        for topic in [topic for topic, each in self._asked.items() if each in fetches]:
            del self._asked[topic]
            self._link.unsubscribe(topic)

    def _take_chunk(self, topic: str, payload: bytes) -> None:
        self._heard_at, self._patience_s = time.monotonic(), FETCH_PATIENCE_S
        wanted = self._asked.pop(topic)
        self._link.unsubscribe(topic)
        fetch = self._fetches[wanted]
        try:
            data = fetch.take(unpack(Chunk, payload))
        except WireError:
            self._drop([wanted])
            self.look()
            raise
        if fetch.outdated:
            self._drop([wanted])
            self.look()
        elif data is not None:
            self._ask_no_more([wanted])
            try:
                self._take_object(wanted, data, fetch.seal)
            finally:
                self._drop([each for each in (wanted,) if each in self._fetches])

    def _take_object(self, wanted: Wanted, data: bytes, seal: bytes) -> None:
        if wanted.kind == "bundle":
            self._take_bundle(wanted.digest, data)
        elif self.follower is not None:
            if wanted.kind == "snapshot":
                self.follower.take_snapshot(data)
                self._keep_model(self.follower.model)
            else:
                self.follower.take_delta(data, object_digest(data), seal)
            self._tell()
            if wanted.version in self.follower.missing_deltas():
                self.look()  # the slot holds another version by now

    def _take_bundle(self, digest: str, data: bytes) -> None:
        self._announced = None
        try:
            bundle = Bundle.from_bytes(data)
        except BundleError as error:
            self.trouble = f"the task {digest[:16]} is refused: {error}"
            raise
        try:
            self._store.put_bundle(digest, data)
        except StoreError as error:
            log.error("the task works, but is fetched again after a restart: %s", error)
        self._begin(bundle)
        self.look()

    def _keep_model(self, model: Model | None) -> None:
        """What a whole snapshot led to is not read a second time."""
        if self.bundle is None or model is None:
            return
        kept = StoredVector(self.bundle.digest, model.run, model.version, model.parameters, model.normalisation)
        try:
            self._store.put_vector("global", kept)
        except StoreError as error:
            log.error("version %d is fetched again after a restart: %s", model.version, error)

    def _subscribe_anew(self, topic: str, *, queued: bool = False) -> None:
        """Has the broker send again what it retains there."""
        self._link.unsubscribe(topic)
        self._link.subscribe(topic, queued=queued)


def _named(wanted: Wanted) -> str:
    return "the task" if wanted.kind == "bundle" else f"{wanted.kind} of v{wanted.version}"
