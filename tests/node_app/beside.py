"""What stands beside the broker in a node's tests: publishes as the aggregator does, and hears what the node says."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import numpy as np

from aggregator.release import publish
from aggregator.release.model import advance, snapshot
from aggregator.release.shelf import Publication, Shelf
from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.session import Received
from fieldfold.params import Vector, digest
from fieldfold.sensors.statistics import FeatureSums, Normalisation, normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import Assemblies, chunk_size, object_digest
from fieldfold.wire.messages import (
    Chunk,
    ClientUpdate,
    Command,
    NodePresence,
    Receipt,
    RejectionCode,
    SnapshotPlace,
    Statistics,
    read,
    unpack,
    write,
)
from fieldfold.wire.topics import Topics

FEDERATION, NODE = "plant", "press-07"
RUN = "00000000000000aa"
SNAPSHOT_EVERY = 5
PATIENCE_S = 20.0
T = TypeVar("T")


class Beside:
    """One task, its released versions, and all that came from the node."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.topics = Topics(FEDERATION)
        self._broker = broker
        self._link = MemoryLink(broker, client_id="aggregator")
        self._link.subscribe(f"{self.topics.root}/node/+/+")
        self._link.start()
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
            self.statistics.append(read(Statistics, payload))
        elif kind == "status":
            self.presences.append(read(NodePresence, payload))
        elif kind == "update":
            taken = self._assemblies.take(unpack(Chunk, payload))
            if taken.whole is not None:
                self.updates.append((object_digest(taken.whole), unpack(ClientUpdate, taken.whole)))

    def next_update(self) -> tuple[str, ClientUpdate]:
        return self.until(lambda: self.updates.pop(0) if self.updates else None, "no update came")

    # -- what it says --

    def say_task(self, bundle: Bundle) -> None:
        self._task = bundle.digest
        self._retain(publish.task_messages(self._shelf, self.topics, bundle, self._chunk_bytes))

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
            for message in publish.live_messages(self.topics, release.delta, self._chunk_bytes):
                self._link.publish(message.topic, message.payload)
            prefix = self.topics.delta(self.version % (2 * SNAPSHOT_EVERY))
            self._retain(self._shelf.put(prefix, release.delta, self._chunk_bytes))
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
        self._link.publish(self.topics.receipt(NODE), write(answer))

    def command(self, command: Command) -> None:
        self._link.publish(self.topics.command(NODE), write(command))

    @property
    def _chunk_bytes(self) -> int:
        return chunk_size(self._broker.limits.message_bytes)

    def _retain(self, messages: Iterable[Publication]) -> None:
        for message in messages:
            self._link.publish(message.topic, message.payload, retain=True)
