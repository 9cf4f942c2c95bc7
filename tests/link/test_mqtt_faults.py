"""What only a network and a real broker can do to a link, and what the link then does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from paho.mqtt import publish as paho_publish

from fieldfold.errors import LinkDownError, LinkError
from fieldfold.link import connection
from fieldfold.link.limits import HEADER_ROOM_BYTES
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Disconnected, Received, Refused
from tests.conftest import EmbeddedBroker, free_port
from tests.link.brokers import PlainMosquitto, cut, payloads, receive, receives_nothing, until, wait_for

NewBroker = Callable[..., PlainMosquitto]
NewLink = Callable[..., MqttLink]

RECEIVE_AND_WAIT = """
import sys, time
from pathlib import Path
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, LinkConfig, Received
link = MqttLink(LinkConfig(url=sys.argv[1]), client_id="aggregator", base=Path())
link.subscribe("update")
link.start()
while not isinstance(event := link.events.get(), Received):
    if isinstance(event, Connected):
        link.publish("ready", b"", retain=True).wait(5)
link.ack(event)
while not isinstance(event := link.events.get(), Received):
    pass
link.publish("elsewhere", b"").wait(5)
print(event.payload.decode(), flush=True)
time.sleep(60)
"""


def test_a_broker_that_is_not_there_yet_is_tried_until_it_is(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto()
    link = new_link(broker.url, "early")
    link.start()
    first = link.events.get(timeout=5)
    assert isinstance(first, Disconnected)
    assert first.reason == f"127.0.0.1:{broker.port}: nobody listens there"
    broker.start()
    wait_for(link, Connected)


def test_each_attempt_is_one_event(new_link: NewLink) -> None:
    link = new_link(f"mqtt://127.0.0.1:{free_port()}", "lonely")
    link.start()
    time.sleep(0.5)
    events = [link.events.get() for _ in range(link.events.qsize())]
    assert all(isinstance(event, Disconnected) for event in events)
    assert 2 <= len(events) <= 6, "waits of 50, 100, 200 ms, each shortened by up to half"


def test_after_kill_9_of_the_broker_the_link_is_back_and_subscribed(
    plain_mosquitto: NewBroker, new_link: NewLink
) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway")
    link.subscribe("command")
    link.start()
    wait_for(link, Connected)

    broker.kill()
    wait_for(link, Disconnected)
    broker.start()
    assert not wait_for(link, Connected).session_present
    assert link.publish("command", b"to myself").wait(5.0)
    assert payloads(receive(link, 1)) == [b"to myself"]


def test_a_process_killed_between_receipt_and_ack_gets_the_message_again(
    plain_mosquitto: NewBroker, new_link: NewLink
) -> None:
    broker = plain_mosquitto()
    broker.start()
    victim = subprocess.Popen([sys.executable, "-c", RECEIVE_AND_WAIT, broker.url], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    with victim.stdout:
        node = new_link(broker.url, "node")
        node.subscribe("ready")
        node.start()
        receive(node, 1)
        for payload in (b"acknowledged", b"open"):
            assert node.publish("update", payload).wait(5.0)
        assert victim.stdout.readline() == "open\n"
        victim.kill()
        victim.wait()

    successor = new_link(broker.url, "aggregator")
    successor.start()
    assert wait_for(successor, Connected).session_present
    assert payloads(receive(successor, 1)) == [b"open"]


def test_deliveries_on_their_way_fail_with_the_link_and_are_not_sent_again(
    plain_mosquitto: NewBroker, new_link: NewLink
) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway")
    link.subscribe("update")
    link.start()
    wait_for(link, Connected)
    assert link.publish("update", b"before").wait(5.0)
    receive(link, 1)

    os.kill(broker.pid, signal.SIGSTOP)
    deliveries = [link.publish("update", b"frozen") for _ in range(3)]
    assert not deliveries[0].wait(0.1)
    broker.kill()
    assert not any(delivery.wait(5.0) for delivery in deliveries)

    broker.start()
    wait_for(link, Connected)
    assert receives_nothing(link, 0.3)


def test_no_more_than_the_window_is_on_its_way(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway", window=4)
    link.start()
    wait_for(link, Connected)
    os.kill(broker.pid, signal.SIGSTOP)
    deliveries = [link.publish("update", b"%d" % number) for number in range(4)]
    with pytest.raises(LinkDownError, match="none of 4 messages"):
        link.publish("update", b"5", timeout_s=0.2)
    os.kill(broker.pid, signal.SIGCONT)
    assert all(delivery.wait(5.0) for delivery in deliveries)
    assert link.publish("update", b"5").wait(5.0)


def test_sending_is_paced(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway", messages_per_s=20.0)
    link.start()
    wait_for(link, Connected)
    began_s = time.monotonic()
    for _ in range(30):
        link.publish("update", b"")
    assert 0.45 < time.monotonic() - began_s < 2.0
    link.publish("update", b"")
    with pytest.raises(LinkDownError, match="pace"):
        link.publish("update", b"", timeout_s=0.0)


def test_the_packet_size_of_the_broker_bounds_our_messages(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto("allow_anonymous true\nmax_packet_size 131072\nmax_inflight_messages 7")
    broker.start()
    link = new_link(broker.url, "gateway", message_bytes=1_048_576)
    link.start()
    limits = wait_for(link, Connected).limits
    assert limits.message_bytes == 131_072 - HEADER_ROOM_BYTES
    assert limits.receive_maximum == 7
    assert limits.protocol == "5"
    with pytest.raises(LinkError, match="exceeds"):
        link.publish("t", bytes(131_072))
    assert link.publish("t" * 256, bytes(limits.message_bytes)).wait(5.0)
    assert link.is_up


def test_a_broker_without_retain_gets_the_message_without_it(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto("allow_anonymous true\nretain_available false")
    broker.start()
    link = new_link(broker.url, "gateway")
    link.subscribe("status")
    link.start()
    assert not wait_for(link, Connected).limits.retain_available
    assert link.publish("status", b"ready", retain=True).wait(5.0)
    assert payloads(receive(link, 1)) == [b"ready"]


def test_a_second_client_of_the_same_name_is_suspected(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    """Mosquitto 2.0.11 takes the session away without a word."""
    broker = plain_mosquitto()
    broker.start()
    first, second = new_link(broker.url, "press-07"), new_link(broker.url, "press-07")
    first.start()
    wait_for(first, Connected)
    second.start()
    suspicion = wait_for(first, Refused)
    assert "another program uses the name press-07" in suspicion.hint
    assert not suspicion.lasting, "a bad link looks the same, so that it is nothing to act on"


def test_a_takeover_that_the_broker_names_is_passed_on_and_not_answered_with_another(new_link: NewLink) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        link = new_link(f"mqtt://127.0.0.1:{broker.getsockname()[1]}", "press-07")
        link.start()
        with broker.accept()[0] as session:
            session.recv(4096)
            session.sendall(bytes.fromhex("20 03 00 00 00"))  # CONNACK: success, no properties
            wait_for(link, Connected)
            session.sendall(bytes.fromhex("e0 02 8e 00"))  # DISCONNECT: session taken over
            refusal = wait_for(link, Refused)
        assert refusal.reason == "another program connected as press-07 and took over the session"
        assert "give each its own name" in refusal.hint
        assert wait_for(link, Disconnected).reason == refusal.reason
        broker.settimeout(1.0)
        with pytest.raises(TimeoutError):
            broker.accept()


def test_the_reason_a_broker_gives_for_ending_the_session_is_passed_on(
    plain_mosquitto: NewBroker, new_link: NewLink
) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway")
    link.start()
    wait_for(link, Connected)
    assert link._up is not None
    link._up._client.publish("", b"an empty topic breaks the protocol", qos=1)
    assert wait_for(link, Disconnected).reason.endswith("the broker ended the session: Protocol error")


def test_a_peer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, new_link: NewLink) -> None:
    monkeypatch.setattr(connection, "CONNACK_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = new_link(f"mqtt://127.0.0.1:{silent.getsockname()[1]}", "patient")
        link.start()
        assert "did not answer an MQTT 5 CONNECT" in wait_for(link, Disconnected).reason
        link.stop()


def test_messages_without_qos_do_not_pile_up_unread(
    monkeypatch: pytest.MonkeyPatch, plain_mosquitto: NewBroker, new_link: NewLink
) -> None:
    monkeypatch.setattr(connection, "UNREAD_BEFORE_DROPPING", 10)
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "reader")
    link.subscribe("flood")
    link.start()
    wait_for(link, Connected)
    flood = [("flood", b"x", 0, False)] * 50
    paho_publish.multiple([*flood, ("flood", b"last", 1, False)], "127.0.0.1", broker.port)
    received: list[Received] = []
    while not received or received[-1].payload != b"last":
        time.sleep(0.01)
        if link.events.qsize() == 11:
            received += receive(link, 11)
    assert len(received) == 11


def test_stop_ends_the_thread_whatever_the_link_is_doing(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto()
    broker.start()
    connected = new_link(broker.url, "connected")
    waiting = new_link(f"mqtt://127.0.0.1:{free_port()}", "waiting")
    for link in (connected, waiting):
        link.start()
    wait_for(connected, Connected)
    wait_for(waiting, Disconnected)
    began_s = time.monotonic()
    for link in (connected, waiting):
        link.stop()
    assert time.monotonic() - began_s < 1.0
    assert not {"link-connected", "link-waiting"} & {thread.name for thread in threading.enumerate()}


def test_stop_does_not_wait_for_a_frozen_broker(plain_mosquitto: NewBroker, new_link: NewLink) -> None:
    broker = plain_mosquitto()
    broker.start()
    link = new_link(broker.url, "gateway")
    link.start()
    wait_for(link, Connected)
    os.kill(broker.pid, signal.SIGSTOP)
    for _ in range(16):
        link.publish("update", bytes(60_000))
    began_s = time.monotonic()
    link.stop(1.0)
    assert time.monotonic() - began_s < 1.5
    broker.kill()


def test_the_embedded_broker_speaks_mqtt_5(embedded_broker: EmbeddedBroker, new_link: NewLink) -> None:
    link = new_link(embedded_broker.url, "five")
    link.subscribe("embedded/five")
    link.start()
    assert wait_for(link, Connected).limits.protocol == "5"
    assert link.publish("embedded/five", b"hello").wait(5.0)
    assert payloads(receive(link, 1)) == [b"hello"]


def test_a_broker_of_mqtt_3_only_is_spoken_to_in_mqtt_3(embedded_broker: EmbeddedBroker, new_link: NewLink) -> None:
    link = new_link(embedded_broker.url_v311, "three")
    link.subscribe("embedded/three")
    link.start()
    assert "did not answer an MQTT 5 CONNECT" in wait_for(link, Disconnected).reason
    limits = wait_for(link, Connected).limits
    assert (limits.protocol, limits.receive_maximum) == ("3.1.1", 20)
    assert link.publish("embedded/three", b"hello", retain=True).wait(5.0)
    assert payloads(receive(link, 1)) == [b"hello"]
    assert link.publish("elsewhere", b"the acknowledgement went before").wait(5.0)

    cut(link)
    wait_for(link, Disconnected)
    assert wait_for(link, Connected).limits.protocol == "3.1.1"
    assert receives_nothing(link), "the session holds the subscription, so nothing retained comes again"
    until(lambda: link.is_up)
    assert link.publish("embedded/three", b"again").wait(5.0)
    assert payloads(receive(link, 1)) == [b"again"]
