"""A broker that somebody else has taken: it reads, alters, forges, keeps and says again whatever it likes.

Programs connect to one of two Mosquittos. What crosses from one to the other goes through here.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Received
from fieldfold.wire.topics import Topics
from tests.link.brokers import PATIENCE_S, PlainMosquitto, plain_link

TOPICS = Topics("plant")
Message = tuple[str, bytes]
Tamper = Callable[[str, bytes], list[Message]]
FROM_NODES = ("key", "update", "statistics", "status")
FROM_AGGREGATOR = ("task/#", "model/#", "aggregator/#", "node/+/receipt", "node/+/command")
NOT_RETAINED = ("/update", "/statistics", "/receipt", "/command")


def honest(topic: str, payload: bytes) -> list[Message]:
    """Hands a message on as it is."""
    return [(topic, payload)]


class HostileBroker:
    """Use as a context manager.

    Attributes:
        tamper: what becomes of a message.
        heard: everything that was said to it, in order, once it was handed on.
    """

    def __init__(self, folder: Path) -> None:
        self._near, self._far = (PlainMosquitto(folder / side) for side in ("near", "far"))
        self._near.start()
        self._far.start()
        self.url_for_nodes, self.url_for_aggregator = self._near.url, self._far.url
        self.to_nodes, self.to_aggregator = (
            plain_link(side.url, "taken", messages_per_s=1e5, bytes_per_s=1e9) for side in (self._near, self._far)
        )
        self.tamper: Tamper = honest
        self.heard: list[Message] = []
        self._open = True
        for kind in FROM_NODES:
            self.to_nodes.subscribe(f"{TOPICS.root}/node/+/{kind}")
        for kind in FROM_AGGREGATOR:
            self.to_aggregator.subscribe(f"{TOPICS.root}/{kind}")
        self._threads = [
            threading.Thread(target=self._carry, args=ends, daemon=True)
            for ends in ((self.to_nodes, self.to_aggregator), (self.to_aggregator, self.to_nodes))
        ]

    def __enter__(self) -> Self:
        for link in (self.to_nodes, self.to_aggregator):
            link.start()
            while not isinstance(link.events.get(timeout=PATIENCE_S), Connected):
                pass
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for link in (self.to_nodes, self.to_aggregator):
            link.stop()
        self._near.kill()
        self._far.kill()

    def _carry(self, source: MqttLink, target: MqttLink) -> None:
        while self._open:
            with contextlib.suppress(queue.Empty):
                event = source.events.get(timeout=0.05)
                if isinstance(event, Received):
                    source.ack(event)
                    for topic, payload in self.tamper(event.topic, event.payload):
                        say(target, topic, payload)
                    self.heard.append((event.topic, event.payload))

    # -- what it can do --

    @contextlib.contextmanager
    def tampering(self, tamper: Tamper) -> Iterator[None]:
        """For a while; what it retains then stays as it is."""
        self.tamper = tamper
        yield
        self.tamper = honest

    def said(self, topic: str, count: int = 1) -> list[bytes]:
        """What was said on a topic, once there is so much."""
        deadline_s = time.monotonic() + PATIENCE_S
        while len(found := [payload for known, payload in list(self.heard) if known == topic and payload]) < count:
            assert time.monotonic() < deadline_s, f"{topic}: {len(found)} messages"
            time.sleep(0.01)
        return found

    def tells_nodes(self, topic: str, payload: bytes) -> None:
        """Says something as if it came from the aggregator."""
        say(self.to_nodes, topic, payload)

    def tells_aggregator(self, topic: str, payload: bytes) -> None:
        """Says something as if it came from a node."""
        say(self.to_aggregator, topic, payload)


def say(link: MqttLink, topic: str, payload: bytes) -> None:
    """As a broker has it: retained where it should be."""
    retain = not topic.endswith(NOT_RETAINED) and "/model/live/" not in topic
    link.publish(topic, payload, retain=retain)


def drop(*parts: str) -> Tamper:
    """Keeps for itself what is said on topics with one of these in them."""
    return lambda topic, payload: [] if any(part in topic for part in parts) else [(topic, payload)]


def exchange(part: str, change: Callable[[bytes], bytes]) -> Tamper:
    """Alters what is said on topics with this in them."""
    return lambda topic, payload: [(topic, change(payload) if part in topic and payload else payload)]
