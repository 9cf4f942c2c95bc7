"""An update travels until its receipt comes: again when nothing is heard, and never twice what has arrived."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldfold.codec import ErrorFeedback
from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.session import BrokerLimits, Delivery, Received
from fieldfold.params import as_vector
from fieldfold.wire.chunks import ENVELOPE_BYTES, Assemblies
from fieldfold.wire.messages import Chunk, ClientUpdate, Receipt, unpack
from node_app import courier as courier_module
from node_app.courier import Courier
from node_app.store import Parcel, Store
from tests.identities import signer

TASK = "ab" * 32
TOPIC = "fieldfold/plant/node/press-07/update"
SIZE = 2000
MESSAGE_BYTES = 1024
PATIENCE_S = 10.0


class Cutting(MemoryLink):
    """A link whose broker goes down in the middle of a publish, when `left` messages have got through.

    `sent` are the chunks that the broker has taken.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, client_id="press-07")
        self.left = -1
        self.sent: list[Chunk] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0) -> Delivery:
        if self.left == 0:
            self._broker.stop()
        self.left -= 1
        delivery = super().publish(topic, payload, retain=retain, timeout_s=timeout_s)
        self.sent.append(unpack(Chunk, payload))
        return delivery


class Aggregator:
    """The other end: takes chunks and puts updates together."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._link = MemoryLink(broker, client_id="aggregator")
        self._link.subscribe(TOPIC)
        self._link.start()
        self._assemblies = Assemblies(1 << 20, 64)
        self.updates: list[ClientUpdate] = []

    def listen(self, quiet_s: float = 0.25) -> None:
        """Takes what comes until nothing comes for a while."""
        while True:
            try:
                event = self._link.events.get(timeout=quiet_s)
            except queue.Empty:
                return
            if isinstance(event, Received):
                self._link.ack(event)
                taken = self._assemblies.take(unpack(Chunk, event.payload))
                if taken.whole is not None:
                    self.updates.append(unpack(ClientUpdate, taken.whole))


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(message_bytes=MESSAGE_BYTES)


@pytest.fixture
def aggregator(broker: MemoryBroker) -> Aggregator:
    return Aggregator(broker)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "node.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def link(broker: MemoryBroker) -> Cutting:
    made = Cutting(broker)
    made.start()
    return made


@pytest.fixture
def courier(store: Store, link: Cutting) -> Iterator[Courier]:
    made = Courier(store, link, TOPIC, seal)
    made.start()
    yield made
    made.stop()


def add(store: Store, base_version: int = 0) -> Parcel:
    delta = as_vector(np.random.default_rng(base_version).standard_normal(SIZE))
    encoded = ErrorFeedback.start(SIZE).encode(delta, "lossless")
    update = ClientUpdate(
        node="press-07",
        sequence=1,
        run=bytes(8),
        base_version=base_version,
        num_examples=1,
        num_steps=1,
        train_loss=0.0,
        trained_norm=encoded.norm,
        base_score=(0.0, 0),
        base_loss=0.0,
        class_scores=(),
        payload=encoded.payload,
    )
    return store.add_update(update, encoded)


def seal(digest: str) -> bytes:
    return signer("press-07").seal(TOPIC, digest)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_what_is_added_arrives_whole_and_in_order(
    store: Store, link: Cutting, courier: Courier, aggregator: Aggregator
) -> None:
    for version in range(3):
        add(store, version)
    courier.wake()
    aggregator.listen()
    assert [(update.sequence, update.base_version) for update in aggregator.updates] == [(1, 0), (2, 1), (3, 2)]
    assert len(link.sent) > 10
    assert courier.waiting == 3, "they stay in the outbox until their receipts come"


def test_what_leaves_at_once_is_not_taken_back_by_a_run_that_begins_at_once(
    store: Store, courier: Courier, aggregator: Aggregator
) -> None:
    for version in range(3):
        courier.offer(add(store, version))
        assert store.take_back(bytes(8).hex()) == 0
        aggregator.listen()
    assert [update.base_version for update in aggregator.updates] == [0, 1, 2]


def test_what_is_offered_while_there_is_no_link_is_replaced_by_the_next(
    store: Store, broker: MemoryBroker, courier: Courier
) -> None:
    broker.stop()
    courier.offer(add(store))
    assert store.take_back(bytes(8).hex()) == 1


def test_what_lay_in_the_outbox_at_the_start_is_sent(store: Store, link: Cutting, aggregator: Aggregator) -> None:
    add(store)
    courier = Courier(store, link, TOPIC, seal)
    assert courier.waiting == 1
    courier.start()
    aggregator.listen()
    courier.stop()
    assert len(aggregator.updates) == 1


def test_an_update_without_a_receipt_is_sent_again_later_and_later(
    store: Store, link: Cutting, aggregator: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "FIRST_PATIENCE_S", 0.2)
    monkeypatch.setattr(courier_module, "_LOOK_S", 0.02)
    parcel = add(store)
    courier = Courier(store, link, TOPIC, seal)
    courier.start()
    begun_at = time.monotonic()
    aggregator.listen(quiet_s=0.9)  # sent at 0, 0.2, 0.6 and 1.4 s
    courier.stop()
    took_s = time.monotonic() - begun_at
    sent = len(aggregator.updates)
    assert 2 <= sent <= 2 + took_s / 0.4, "the waits double"
    assert len({update.sequence for update in aggregator.updates}) == 1
    assert store.settle(Receipt(sequence=parcel.sequence, update=parcel.digest, decision="accepted"))


def test_after_its_receipt_an_update_is_not_sent_again(
    store: Store, link: Cutting, aggregator: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "FIRST_PATIENCE_S", 0.2)
    monkeypatch.setattr(courier_module, "_LOOK_S", 0.02)
    parcel = add(store)
    courier = Courier(store, link, TOPIC, seal)
    courier.start()
    until(lambda: courier.bytes_sent > len(parcel.body))
    store.settle(Receipt(sequence=parcel.sequence, update=parcel.digest, decision="accepted"))
    courier.wake()
    aggregator.listen(quiet_s=0.5)
    courier.stop()
    assert len(aggregator.updates) == 1
    assert courier.waiting == 0


def test_after_a_dropped_link_only_what_is_missing_is_sent(
    store: Store, broker: MemoryBroker, link: Cutting, courier: Courier, aggregator: Aggregator
) -> None:
    link.left = 3
    add(store)
    courier.wake()
    until(lambda: not link.is_up)
    broker.start()
    time.sleep(1.0)  # the courier leaves a link that failed alone for a second
    courier.wake()
    aggregator.listen()
    assert len(aggregator.updates) == 1
    assert [chunk.index for chunk in link.sent] == list(range(link.sent[0].num_chunks)), "each chunk once"


def test_while_there_is_no_link_nothing_is_tried_and_nothing_is_lost(
    store: Store, broker: MemoryBroker, courier: Courier, aggregator: Aggregator
) -> None:
    broker.stop()
    add(store)
    courier.wake()
    aggregator.listen()
    assert aggregator.updates == []
    assert courier.bytes_sent == 0
    broker.start()
    courier.wake()
    aggregator.listen()
    assert len(aggregator.updates) == 1


def test_a_broker_with_a_smaller_limit_gets_it_cut_anew(
    store: Store, broker: MemoryBroker, link: Cutting, courier: Courier, aggregator: Aggregator
) -> None:
    link.left = 3
    add(store)
    courier.wake()
    until(lambda: not link.is_up)
    broker.limits = BrokerLimits(message_bytes=MESSAGE_BYTES // 2)
    broker.start()
    time.sleep(1.0)
    courier.wake()
    aggregator.listen()
    assert len(aggregator.updates) == 1
    assert {chunk.chunk_bytes for chunk in link.sent[:3]} == {MESSAGE_BYTES - ENVELOPE_BYTES}
    assert {chunk.chunk_bytes for chunk in link.sent[3:]} == {MESSAGE_BYTES // 2 - ENVELOPE_BYTES}


def test_it_ends_at_once_and_the_outbox_stays(store: Store, broker: MemoryBroker, courier: Courier) -> None:
    broker.stop()
    add(store)
    courier.wake()
    begun_at = time.monotonic()
    courier.stop()
    assert time.monotonic() - begun_at < 1.0
    assert store.num_waiting() == 1
