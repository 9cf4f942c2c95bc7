"""Virtual nodes: their updates are real ones of our wire format, kept until the receipt has been read."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Sequence

import msgspec

from benchmarks.load.mqtt import Session, connect
from benchmarks.load.parties import Parties
from benchmarks.load.site import FEDERATION
from fieldfold.wire.chunks import chunk_size, cut, object_digest
from fieldfold.wire.messages import ClientUpdate, ModelManifest, Receipt, pack, read
from fieldfold.wire.topics import Topics

MESSAGE_BYTES = 60 * 1024
TOPICS = Topics(FEDERATION)


class Counts(msgspec.Struct):
    """What came back to all nodes together; `latencies_s` from the first byte of an update to its receipt."""

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    deferred: int = 0
    bytes_sent: int = 0
    live_messages: int = 0
    live_bytes: int = 0
    newest_version: int = 0
    reasons: collections.Counter[str] = msgspec.field(default_factory=collections.Counter)
    latencies_s: collections.deque[float] = msgspec.field(default_factory=lambda: collections.deque(maxlen=10_000))


class VirtualNode:
    """One node: at most one update of it is under way. It sends the payloads in turn, each number another first."""

    def __init__(self, number: int, run: bytes, payloads: Sequence[bytes], counts: Counts, parties: Parties) -> None:
        self.name = f"node-{number:05}"
        self._number, self._run, self._payloads, self.counts = number, run, payloads, counts
        self._parties, self._signer = parties, parties.signer(self.name)
        self._sequence = 0
        self._began_s = 0.0
        self.waiting = False
        self.session: Session | None = None

    async def connect(self, port: int, *, follows: bool) -> None:
        """Shows its key, and subscribes to its receipts and, if it `follows`, to the releases, as a node does."""
        filters = [(TOPICS.receipt(self.name), 1), *([(TOPICS.live_deltas, 0)] if follows else [])]
        self.session = await connect(port, f"load-{self.name}", self._heard, *filters)
        key = TOPICS.key(self.name)
        self.session.publish(key, self._parties.credential(self.name, key))

    def send(self) -> None:
        """Sends its next update, against the newest version that anybody has heard of."""
        assert self.session is not None  # noqa: S101 - connected by whoever calls
        self._sequence += 1
        body = pack(
            ClientUpdate(
                node=self.name,
                sequence=self._sequence,
                run=self._run,
                base_version=self.counts.newest_version,
                num_examples=1000,
                num_steps=20,
                train_loss=0.5,
                trained_norm=2.0,
                base_score=(1.0, 100),
                base_loss=0.5,
                class_scores=(),
                payload=self._payloads[(self._sequence + self._number) % len(self._payloads)],
            )
        )
        self._began_s, self.waiting = time.monotonic(), True
        self.counts.sent += 1
        self.counts.bytes_sent += len(body)
        topic = TOPICS.update(self.name)
        for message in cut(body, chunk_size(MESSAGE_BYTES), self._signer.seal(topic, object_digest(body))):
            self.session.publish(topic, message)

    async def close(self) -> None:
        """Hangs up."""
        if self.session is not None:
            await self.session.close()

    def _heard(self, topic: str, payload: bytes) -> None:
        counts = self.counts
        if topic != TOPICS.receipt(self.name):
            counts.live_messages += 1
            counts.live_bytes += len(payload)
            return
        receipt = read(Receipt, payload)
        counts.newest_version = max(counts.newest_version, receipt.version)
        if receipt.sequence != self._sequence or not self.waiting:
            return
        self.waiting = False
        counts.latencies_s.append(time.monotonic() - self._began_s)
        if receipt.decision == "accepted":
            counts.accepted += 1
        elif receipt.decision == "rejected":
            counts.rejected += 1
            counts.reasons[receipt.reason] += 1
        else:
            counts.deferred += 1


async def present_run(port: int) -> bytes:
    """The name of the run, from the manifest."""
    found: asyncio.Queue[bytes] = asyncio.Queue()
    wanted = (TOPICS.model_manifest, 1)
    session = await connect(port, "load-manifest", lambda _, payload: found.put_nowait(payload), wanted)
    manifest = read(ModelManifest, await found.get())
    await session.close()
    return bytes.fromhex(manifest.run)
