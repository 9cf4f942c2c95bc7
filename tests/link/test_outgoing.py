"""Whoever has something to say need not wait until it can be sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fieldfold.link import outgoing as outgoing_module
from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.outgoing import Outgoing
from fieldfold.link.session import Connected, Received
from tests.link.brokers import receive, receives_nothing, wait_for

PATIENCE_S = 10.0


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(message_bytes=100)


@pytest.fixture
def reader(broker: MemoryBroker) -> MemoryLink:
    reader = MemoryLink(broker, client_id="reader")
    reader.subscribe("#")
    reader.start()
    return reader


@pytest.fixture
def outgoing(broker: MemoryBroker) -> Iterator[Outgoing]:
    link = MemoryLink(broker, client_id="writer")
    link.start()
    outgoing = Outgoing(link)
    yield outgoing
    outgoing.stop()
    link.stop()


def test_messages_keep_their_order(reader: MemoryLink, outgoing: Outgoing) -> None:
    for number in range(200):
        outgoing.send("a", b"%d" % number)
    assert [int(message.payload) for message in receive(reader, 200)] == list(range(200))
    assert outgoing.drain(PATIENCE_S)
    assert outgoing.bytes_sent == sum(len(b"%d" % number) for number in range(200))


def test_what_is_held_back_leaves_when_it_may(reader: MemoryLink, outgoing: Outgoing) -> None:
    outgoing.hold()
    outgoing.send("a", b"first")
    outgoing.retain("b", b"second")
    assert receives_nothing(reader)
    outgoing.wake()
    assert [message.payload for message in receive(reader, 2)] == [b"first", b"second"]


def test_a_retained_message_that_has_not_left_is_replaced(broker: MemoryBroker, outgoing: Outgoing) -> None:
    broker.stop()
    for number in range(5):
        outgoing.retain("version", b"%d" % number)
        outgoing.retain("other", b"x")
    broker.start()
    outgoing.wake()
    assert outgoing.drain(PATIENCE_S)
    assert outgoing.bytes_sent == 2
    late = MemoryLink(broker, client_id="late")
    late.subscribe("version")
    late.start()
    message = wait_for(late, Received)
    assert (message.payload, message.retained) == (b"4", True)


def test_what_cannot_be_sent_now_waits_in_order(broker: MemoryBroker, reader: MemoryLink, outgoing: Outgoing) -> None:
    broker.stop()
    for number in range(5):
        outgoing.send("a", b"%d" % number)
    assert not outgoing.drain(0.05)
    broker.start()
    outgoing.wake()
    assert [int(message.payload) for message in receive(reader, 5)] == list(range(5))


def test_a_link_whose_coming_up_was_missed_is_looked_at_again(
    broker: MemoryBroker, reader: MemoryLink, outgoing: Outgoing
) -> None:
    broker.stop()
    outgoing.send("a", b"1")
    broker.start()
    assert receive(reader, 1)[0].payload == b"1"


def test_what_the_broker_does_not_take_is_dropped_and_the_rest_goes_on(
    reader: MemoryLink, outgoing: Outgoing, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker's limit may have fallen since a chunk was cut."""
    outgoing.send("a", b"x" * 101)
    outgoing.retain("b", b"x" * 101)
    outgoing.send("a", b"fits")
    assert receive(reader, 1)[0].payload == b"fits"
    assert outgoing.drain(PATIENCE_S)
    assert "a message to a cannot be sent: a message of 101 bytes" in caplog.text


def test_the_oldest_are_dropped_when_too_many_wait(
    monkeypatch: pytest.MonkeyPatch, broker: MemoryBroker, reader: MemoryLink
) -> None:
    monkeypatch.setattr(outgoing_module, "MAX_WAITING", 3)
    link = MemoryLink(broker, client_id="writer")
    outgoing = Outgoing(link)
    for number in range(10):
        outgoing.send("a", b"%d" % number)
    link.start()
    outgoing.wake()
    assert [int(message.payload) for message in receive(reader, 3)] == [7, 8, 9]
    assert receives_nothing(reader)
    outgoing.stop()


def test_nothing_is_sent_after_stop(broker: MemoryBroker, reader: MemoryLink) -> None:
    link = MemoryLink(broker, client_id="writer")
    outgoing = Outgoing(link)
    outgoing.send("a", b"1")
    outgoing.stop()
    link.start()
    wait_for(link, Connected)
    assert receives_nothing(reader)


def test_several_threads_may_speak_while_one_waits_for_the_end(reader: MemoryLink, outgoing: Outgoing) -> None:
    def speak(topic: str) -> None:
        for number in range(100):
            outgoing.send(topic, b"%d" % number)

    threads = [threading.Thread(target=speak, args=(topic,)) for topic in "abc"]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while any(thread.is_alive() for thread in threads):
        outgoing.drain(0.01)
        assert time.monotonic() < deadline_s
    messages = receive(reader, 300)
    for topic in "abc":
        assert [int(one.payload) for one in messages if one.topic == topic] == list(range(100))
