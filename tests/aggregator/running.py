"""A whole aggregator on the in-memory broker, and those who talk to it."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from aggregator.config import AggregatorConfig
from aggregator.records import AggregatorStatus
from aggregator.service import Service
from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.session import Received
from fieldfold.params import Vector
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import Assembly
from fieldfold.wire.messages import (
    Chunk,
    ClientUpdate,
    ModelManifest,
    Readable,
    Receipt,
    Statistics,
    read,
    unpack,
    write,
)
from tests.aggregator.tiny import TOPICS, chunks
from tests.identities import credential, signer

T = TypeVar("T")
M = TypeVar("M", bound=Readable)
PATIENCE_S = 10.0
CLIENT_ID = "aggregator"


def eventually(look: Callable[[], T | None], what: str = "what was expected") -> T:
    """What `look` gives once it gives something."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        found = look()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come within {PATIENCE_S} s")


class RunningAggregator:
    """A service in a thread of its own, which owns its ledger as the main thread does in a process."""

    def __init__(self, config: AggregatorConfig, folder: Path, broker: MemoryBroker) -> None:
        self._begun: queue.SimpleQueue[Service | Exception] = queue.SimpleQueue()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(config, folder, broker), daemon=True)
        self._thread.start()
        begun = self._begun.get(timeout=PATIENCE_S)
        if isinstance(begun, Exception):
            raise begun
        self.service = begun

    def _run(self, config: AggregatorConfig, folder: Path, broker: MemoryBroker) -> None:
        runs = (f"{run:016x}" for run in itertools.count(1))
        try:
            link, lookout = (MemoryLink(broker, client_id=name) for name in (CLIENT_ID, "lookout"))
            service = Service(config, folder, (link, lookout), runs.__next__)
        except Exception as error:  # noqa: BLE001 - raised where it was started
            self._begun.put(error)
            return
        self._begun.put(service)
        try:
            service.run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        assert self.error is None

    def within(self, run: Callable[[], T]) -> T:
        """Runs something in the service's thread."""
        result: T = self.service._desk.ask(run)
        return result

    @property
    def status(self) -> AggregatorStatus:
        return self.service.status()

    def reaches(self, version: int) -> None:
        eventually(lambda: self.status.version == version, f"version {version}")

    def publish(self, bundle: Bundle) -> None:
        self.within(lambda: self.service._federation.set_task(bundle))

    @property
    def released(self) -> Vector:
        model = self.service._federation.model
        assert model is not None
        return model.released

    @property
    def exact(self) -> Vector:
        model = self.service._federation.model
        assert model is not None
        return model.exact


class Witness:
    """Reads and acknowledges everything; keeps the newest payload of each topic, and all receipts."""

    def __init__(self, broker: MemoryBroker, client_id: str = "witness") -> None:
        self.link = MemoryLink(broker, client_id=client_id)
        self.link.subscribe("#")
        self.link.start()
        self.newest: dict[str, bytes] = {}
        self.receipts: list[tuple[str, Receipt]] = []

    def look(self) -> None:
        """Takes what has come."""
        while True:
            try:
                event = self.link.events.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, Received):
                self.link.ack(event)
                self.newest[event.topic] = event.payload
                if event.topic.endswith("/receipt"):
                    self.receipts.append((TOPICS.node_of(event.topic), read(Receipt, event.payload)))

    def message(self, kind: type[M], topic: str, fits: Callable[[M], bool] = lambda _: True) -> M:
        """The newest message on a topic, once there is one that fits."""

        def found() -> M | None:
            self.look()
            payload = self.newest.get(topic)
            message = read(kind, payload) if payload else None
            return message if message is not None and fits(message) else None

        return eventually(found, f"{kind.__name__} on {topic}")

    def manifest(self, version: int) -> ModelManifest:
        """The model's manifest once it names this version."""
        return self.message(ModelManifest, TOPICS.model_manifest, lambda manifest: manifest.version == version)

    def object(self, prefix: str) -> bytes:
        """What the chunks on `prefix/0`, `prefix/1` and so on make up."""

        def topic(index: int) -> str:
            return f"{prefix}/{index}"

        def found() -> bytes | None:
            self.look()
            if not self.newest.get(topic(0)):
                return None
            assembly = Assembly(unpack(Chunk, self.newest[topic(0)]))
            for index in range(assembly.num_chunks):
                if self.newest.get(topic(index)):
                    assembly.add(unpack(Chunk, self.newest[topic(index)]))
            return None if assembly.missing else assembly.whole()

        return eventually(found, f"the object on {prefix}")

    def receipt(self, node: str, sequence: int, count: int = 1) -> Receipt:
        """The newest receipt for an update once `count` have come."""

        def found() -> list[Receipt] | None:
            self.look()
            mine = [receipt for name, receipt in self.receipts if (name, receipt.sequence) == (node, sequence)]
            return mine if len(mine) >= count else None

        return eventually(found, f"the receipt for update {sequence} of {node}")[-1]


class Node:
    """Sends what it is told to; what it hears is the witness's to see."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.name = name
        self._issued = 0
        self.link = MemoryLink(broker, client_id=name)
        self.link.start()
        self.link.publish(TOPICS.key(name), credential(name, TOPICS.key(name)), retain=True)

    def send(self, update: ClientUpdate, chunk_bytes: int = 4096) -> None:
        """An update, whatever name it bears."""
        self.send_pieces(chunks(update, chunk_bytes, self.name))

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Some chunks of an update."""
        for piece in pieces:
            self.link.publish(TOPICS.update(self.name), piece)

    def send_statistics(self, task: str, sums: FeatureSums, **changes: Any) -> None:
        self._issued += 1
        fields = {
            "issued": self._issued,
            "count": sums.count,
            "total": sums.total,
            "total_of_squares": sums.total_of_squares,
            **changes,
        }
        topic = TOPICS.statistics(self.name)
        self.link.publish(topic, signer(self.name).message(topic, write(Statistics(task=task, **fields))))
