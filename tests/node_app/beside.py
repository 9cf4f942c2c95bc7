"""What stands beside the broker in a node's tests: publishes as the aggregator does, and hears what the node says."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec
import numpy as np

from aggregator.release import publish
from aggregator.release.model import advance, snapshot
from aggregator.release.shelf import Publication, Shelf
from fieldfold.link.session import Link, Received
from fieldfold.params import Vector, digest
from fieldfold.sensors.statistics import FeatureSums, Normalisation, normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.trust.credentials import examine, read_authorities
from fieldfold.trust.signing import Verifier
from fieldfold.wire.chunks import Assemblies, chunk_size, object_digest
from fieldfold.wire.messages import (
    Chunk,
    ClientUpdate,
    Command,
    NodePresence,
    Readable,
    Receipt,
    RejectionCode,
    SnapshotPlace,
    Statistics,
    read,
    unpack,
    write,
)
from fieldfold.wire.topics import AGGREGATOR, Topics
from tests.identities import credential, identity, signer

FEDERATION, NODE = "plant", "press-07"
RUN = "00000000000000aa"
SNAPSHOT_EVERY = 5
PATIENCE_S = 20.0
T = TypeVar("T")


class Beside:
    """One task, its released versions, and all that came from the node."""

    def __init__(self, link: Link) -> None:
        self.topics = Topics(FEDERATION)
        self._link = link
        self._link.subscribe(f"{self.topics.root}/node/+/+")
        self._link.start()
        while not self._link.is_up:
            time.sleep(0.01)
        self.signer, self._issued = signer(AGGREGATOR), 0
        key = self.topics.aggregator_key
        self._link.publish(key, credential(AGGREGATOR, key), retain=True)
        self._verifier: Verifier | None = None
        self._assemblies = Assemblies(1 << 20, 64)
        self.statistics: list[Statistics] = []
        self.updates: list[tuple[str, ClientUpdate]] = []
        self.presences: list[NodePresence] = []
        self.largest_message = 0
        self.version = 0
        self._released: Vector = np.empty(0, np.float32)
        self._scale: Normalisation | None = None
        self._snapshot: SnapshotPlace | None = None
        self._shelf = Shelf({})
        self._task = ""
        self.run = RUN

    # -- what it hears --

    def until(self, found: Callable[[], T | None], what: str = "") -> T:
        """Takes messages until `found` gives something."""
        deadline = time.monotonic() + PATIENCE_S
        while not (result := found()):
            assert time.monotonic() < deadline, what or "it did not happen"
            self.listen(0.05)
        return result

    def listen(self, within_s: float) -> None:
        try:
            event = self._link.events.get(timeout=within_s)
        except queue.Empty:
            return
        if isinstance(event, Received):
            self._link.ack(event)
            self._take(event.topic.rsplit("/", 1)[1], event.payload)

    def _take(self, kind: str, payload: bytes) -> None:
        self.largest_message = max(self.largest_message, len(payload))
        if kind == "statistics":
            assert self._verifier is not None
            self.statistics.append(read(Statistics, self._verifier.open(self.topics.statistics(NODE), payload)))
        elif kind == "key":
            authorities = read_authorities(identity(NODE).ca)
            self._verifier = Verifier(examine(payload, self.topics.key(NODE), NODE, authorities).public_key, NODE)
        elif kind == "status":
            self.presences.append(read(NodePresence, payload))
        elif kind == "update":
            taken = self._assemblies.take(unpack(Chunk, payload))
            if taken.whole is not None:
                assert self._verifier is not None
                self._verifier.check(self.topics.update(NODE), taken.digest, taken.seal)
                self.updates.append((object_digest(taken.whole), unpack(ClientUpdate, taken.whole)))

    def next_update(self) -> tuple[str, ClientUpdate]:
        return self.until(lambda: self.updates.pop(0) if self.updates else None, "no update came")

    # -- what it says --

    def say_task(self, bundle: Bundle) -> None:
        self._task = bundle.digest
        self._retain(
            publish.task_messages(
                self._shelf, self.topics, self.signer, bundle, chunk_bytes=self._chunk_bytes, issued=self.issue()
            )
        )

    def begin(self, bundle: Bundle, sums: Statistics, run: str = RUN) -> None:
        """Version 0, with the node's own statistics as the fleet's."""
        self.version, self._released, self.run, self._snapshot = 0, bundle.initial_parameters(), run, None
        self._scale = normalisation(FeatureSums(sums.count, sums.total, sums.total_of_squares))
        self.say_manifest()

    def has_no_model(self) -> None:
        """As an aggregator that waits for statistics."""
        self._retain([Publication(self.topics.model_manifest, b"")])

    def release(self, *, show: bool = True) -> None:
        """The next version, a little further along."""
        step = np.float32(0.001) * np.sign(self._released)
        release = advance(self._released + step, self._released, self.version, self.run, "int8")
        self.version, self._released = release.version, release.released
        if show:
            seal = publish.seal_of(self.topics, self.signer, release.delta)
            for message in publish.live_messages(self.topics, release.delta, seal, self._chunk_bytes):
                self._link.publish(message.topic, message.payload)
            prefix = self.topics.delta(self.version % (2 * SNAPSHOT_EVERY))
            self._retain(self._shelf.put(prefix, release.delta, self._chunk_bytes, seal))
        if self.version % SNAPSHOT_EVERY == 0:
            self.say_snapshot()
        self.say_manifest()

    def say_snapshot(self) -> None:
        whole = snapshot(self._released, self.version, self.run)
        slot = self.version // SNAPSHOT_EVERY % 2
        self._snapshot = SnapshotPlace(
            version=self.version, slot=slot, digest=object_digest(whole), size_bytes=len(whole)
        )
        self._retain(self._shelf.put(self.topics.snapshot(slot), whole, self._chunk_bytes))

    def say_manifest(self) -> None:
        message = publish.manifest_message(
            self.topics,
            self.signer,
            issued=self.issue(),
            task=self._task,
            run=self.run,
            version=self.version,
            parameters=digest(self._released),
            deltas_from=self._snapshot.version if self._snapshot else 0,
            delta_slots=2 * SNAPSHOT_EVERY,
            snapshot=self._snapshot,
            normalisation=self._scale,
            chunk_bytes=self._chunk_bytes,
            score=None,
        )
        self._retain([message])

    def receipt(self, update: tuple[str, ClientUpdate], code: RejectionCode | None = None) -> None:
        """Accepted, or rejected with a code."""
        name, body = update
        answer = Receipt(sequence=body.sequence, update=name, decision="accepted", version=self.version)
        if code is not None:
            answer = msgspec.structs.replace(
                answer, decision="rejected", code=code, reason=f"it is {code}", hint="look here"
            )
        self.say(self.topics.receipt(NODE), answer)

    def command(self, command: Literal["pause", "resume", "resend_statistics"], by: str = "") -> None:
        self.say(self.topics.command(NODE), Command(issued=self.issue(), command=command, by=by))

    def say(self, topic: str, message: Readable) -> None:
        self._link.publish(topic, self.signer.message(topic, write(message)))

    def issue(self) -> int:
        self._issued += 1
        return self._issued

    @property
    def _chunk_bytes(self) -> int:
        return chunk_size(self._link.limits.message_bytes)

    def _retain(self, messages: Iterable[Publication]) -> None:
        for message in messages:
            self._link.publish(message.topic, message.payload, retain=True)
