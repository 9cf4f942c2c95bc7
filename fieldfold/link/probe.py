"""Tries on a live broker what must be possible and what must be refused."""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fieldfold.errors import LinkDownError, LinkError
from fieldfold.link.endpoint import Endpoint
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Disconnected, LinkConfig, Refused

PATIENCE_S = 5.0

# CONNECT of MQTT 3.1.1 with the client id `probe`; whoever answers it with CONNACK spoke MQTT with a stranger.
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe"
_CONNACK_TYPE = 0x20


@contextmanager
def connected(config: LinkConfig, client_id: str, base: Path) -> Iterator[MqttLink]:
    """A link that is up, under a session of its own.

    Raises:
        LinkError: the broker is not reached, or does not let us in; with its reason.
    """
    link = MqttLink(msgspec.structs.replace(config, session_expiry_s=0), client_id=client_id, base=base)
    link.start()
    try:
        _wait(link, config.url)
        yield link
    finally:
        link.stop()


def permitted(link: MqttLink, topics: Sequence[str]) -> list[str]:
    """Those of `topics` to which the broker lets us publish an empty message, which every reader ignores.

    Raises:
        LinkError: the link ended meanwhile, or MQTT 3.1.1, which does not say what it refuses.
    """
    if link.limits.protocol != "5":
        raise LinkError("the broker speaks MQTT 3.1.1, which does not say what it refuses", "allow MQTT 5 there")
    taken = []
    for topic in topics:
        try:
            if link.publish(topic, b"", timeout_s=PATIENCE_S).wait(PATIENCE_S):
                taken.append(topic)
        except LinkDownError as error:
            raise LinkError(f"the connection ended while {topic} was tried", error.reason) from None
    if not link.is_up:
        raise LinkError("the connection ended while permissions were tried", "see the broker's log")
    return taken


def answers_plain_mqtt(endpoint: Endpoint) -> bool:
    """Whether the broker speaks MQTT without TLS on this port, to anybody."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), PATIENCE_S) as connection:
            return _answers(connection)
    except OSError:
        return False


def answers_without_certificate(endpoint: Endpoint) -> bool:
    """Whether the broker speaks MQTT over TLS with somebody who shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is told to it; the question is what it tells us
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), PATIENCE_S) as connection,
            context.wrap_socket(connection) as secured,
        ):
            return _answers(secured)
    except OSError:
        return False


def _answers(connection: socket.socket) -> bool:
    connection.settimeout(PATIENCE_S)
    connection.sendall(_CONNECT)
    answer = connection.recv(4)
    return len(answer) == 4 and answer[0] == _CONNACK_TYPE and answer[3] == 0


def _wait(link: MqttLink, url: str) -> None:
    deadline_s = time.monotonic() + 3 * PATIENCE_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            event = link.events.get(timeout=left_s)
        except queue.Empty:
            break
        if isinstance(event, Connected):
            return
        if isinstance(event, Refused):
            raise LinkError(event.reason, event.hint)
        if isinstance(event, Disconnected):
            raise LinkError(event.reason, "check the address, the broker and any firewall between")
    raise LinkError(f"{url} does not answer", "check the address, the broker and any firewall between")
