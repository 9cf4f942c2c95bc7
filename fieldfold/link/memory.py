"""The in-memory twin of a broker and its links: same promises, no sockets, no threads, no timers.

What a call causes has happened when it returns, so tests and simulations are deterministic. Thread-safe.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque

from fieldfold.errors import LinkDownError
from fieldfold.link.acks import AckBook
from fieldfold.link.limits import RECEIVE_MAXIMUM, check_message
from fieldfold.link.reasons import session_taken_over
from fieldfold.link.session import (
    DEFAULT_MESSAGE_BYTES,
    BrokerLimits,
    Connected,
    Delivery,
    Disconnected,
    Event,
    Received,
    Will,
)
from fieldfold.link.subscriptions import Subscription, Subscriptions
from fieldfold.link.topic_filter import check_filter, matches


class Taken:
    """A `Delivery` that the broker has acknowledged already."""

    def wait(self, timeout_s: float) -> bool:  # noqa: ARG002 - the contract's signature
        """True at once."""
        return True


class _Session:
    """What the broker keeps for a client, connected or not. Messages are (topic, payload, retained)."""

    def __init__(self) -> None:
        self.filters: dict[str, Subscription] = {}
        self.waiting: deque[tuple[str, bytes, bool]] = deque()
        self.sent: dict[int, tuple[str, bytes, bool]] = {}
        self.book = AckBook()
        self.link: MemoryLink | None = None

    def lose_connection(self) -> None:
        """What was sent and not acknowledged comes first again."""
        self.waiting.extendleft(reversed(self.sent.values()))
        self.sent, self.book, self.link = {}, AckBook(), None


class MemoryBroker:
    """Retained messages, persistent sessions, QoS 0 and 1 and a receive window, as an MQTT 5 broker has them.

    Args:
        message_bytes: the largest payload allowed.
        receive_maximum: messages handed to a link before it acknowledges the first; an `MqttLink` asks for 64.
        max_queued_messages: messages kept for a session beyond that; more are dropped, as Mosquitto does.
    """

    def __init__(
        self,
        *,
        message_bytes: int = DEFAULT_MESSAGE_BYTES,
        receive_maximum: int = RECEIVE_MAXIMUM,
        max_queued_messages: int = 1000,
    ) -> None:
        self.limits = BrokerLimits(message_bytes=message_bytes)
        self._receive_maximum = receive_maximum
        self.lock = threading.RLock()
        self._max_queued = max_queued_messages
        self._running = True
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, bytes] = {}
        self._links: dict[str, MemoryLink] = {}
        self._tokens = itertools.count(1)

    def stop(self) -> None:
        """Every link goes down and stays down; sessions and retained messages are kept."""
        with self.lock:
            self._running = False
            for link in self._links.values():
                self._cut(link, "the broker is down")

    def start(self) -> None:
        """Every link that was started comes up again."""
        with self.lock:
            if not self._running:
                self._running = True
                for link in self._links.values():
                    self._connect(link)

    def drop(self, client_id: str) -> None:
        """Cuts one link without a goodbye: its will is published, and it comes back at once."""
        with self.lock:
            link = self._links[client_id]
            if link.is_up:
                self._cut(link, "the connection was lost")
                self._publish_will(link)
                self._connect(link)

    # -- what links ask of their broker; each caller holds `lock` --

    def join(self, link: MemoryLink) -> None:
        """Connects a link now and after each `start`; one of the same name loses the session for good."""
        former = self._links.get(link.client_id)
        if former is not None:
            taken_over = session_taken_over(link.client_id)
            former.events.put(taken_over)
            self.leave(former, taken_over.reason)
            self._publish_will(former)
        self._links[link.client_id] = link
        if self._running:
            self._connect(link)
        else:
            link.events.put(Disconnected("the broker is down"))

    def leave(self, link: MemoryLink, reason: str) -> None:
        """Disconnects a link; its session stays."""
        if self._links.get(link.client_id) is link:
            self._cut(link, reason)
            del self._links[link.client_id]

    def serves(self, link: MemoryLink) -> bool:
        """Whether the link is connected."""
        session = self._sessions.get(link.client_id)
        return session is not None and session.link is link

    def subscribe(self, link: MemoryLink, subscription: Subscription) -> None:
        """Retained messages are handed over only when the session did not hold the filter."""
        session, topic_filter = self._sessions[link.client_id], subscription.topic_filter
        if topic_filter not in session.filters:
            session.filters[topic_filter] = subscription
            for topic, payload in self._retained.items():
                if matches(topic_filter, topic):
                    self._hand_over(session, (topic, payload, True), queued=subscription.queued)

    def unsubscribe(self, link: MemoryLink, topic_filter: str) -> None:
        """Messages that wait already are still delivered."""
        self._sessions[link.client_id].filters.pop(topic_filter, None)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """One copy to every session with a filter that matches; an empty retained payload forgets the topic."""
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        for session in self._sessions.values():
            hits = [s.queued for topic_filter, s in session.filters.items() if matches(topic_filter, topic)]
            if hits:
                self._hand_over(session, (topic, payload, False), queued=any(hits))

    def settle(self, link: MemoryLink, token: int) -> None:
        """An acknowledgement; makes room in the receive window."""
        session = self._sessions[link.client_id]
        for acknowledged in session.book.settle(token):
            del session.sent[acknowledged]
        self._pump(session)

    # -- inside --

    def _connect(self, link: MemoryLink) -> None:
        present = link.client_id in self._sessions
        session = self._sessions.setdefault(link.client_id, _Session())
        session.link = link
        link.events.put(Connected(present, self.limits))
        self._pump(session)
        withdrawn, wanted = link.subscriptions.due("5", session_present=present)
        for topic_filter in withdrawn:
            self.unsubscribe(link, topic_filter)
        for subscription in wanted:
            self.subscribe(link, subscription)

    def _cut(self, link: MemoryLink, reason: str) -> None:
        if self.serves(link):
            self._sessions[link.client_id].lose_connection()
            link.events.put(Disconnected(reason))

    def _publish_will(self, link: MemoryLink) -> None:
        if link.will is not None:
            self.publish(link.will.topic, link.will.payload, retain=link.will.retain)

    def _hand_over(self, session: _Session, message: tuple[str, bytes, bool], *, queued: bool) -> None:
        if not queued:
            if session.link is not None:
                session.link.events.put(Received(*message, next(self._tokens)))
        elif len(session.waiting) < self._max_queued:
            session.waiting.append(message)
            self._pump(session)

    def _pump(self, session: _Session) -> None:
        while session.link is not None and session.waiting and len(session.sent) < self._receive_maximum:
            token = next(self._tokens)
            topic, payload, retained = session.sent[token] = session.waiting.popleft()
            session.book.receive(token, token)
            session.link.events.put(Received(topic, payload, retained, token))


class MemoryLink:
    """A `Link` to a `MemoryBroker`. A second one with the same `client_id` takes over the session."""

    def __init__(self, broker: MemoryBroker, *, client_id: str, will: Will | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.client_id = client_id
        self.will = will
        self.subscriptions = Subscriptions()
        self._broker = broker

    def start(self) -> None:
        """Connects where the broker runs, else as soon as it starts."""
        with self._broker.lock:
            self._broker.join(self)

    def stop(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002 - the contract's signature
        """Ends the link; the session stays with the broker and no will is published."""
        with self._broker.lock:
            self._broker.leave(self, "the link was stopped")

    @property
    def limits(self) -> BrokerLimits:
        """The broker's."""
        return self._broker.limits

    @property
    def is_up(self) -> bool:
        """Whether a message could be sent now."""
        with self._broker.lock:
            return self._broker.serves(self)

    def subscribe(self, topic_filter: str, *, queued: bool = True) -> None:
        """See `Link.subscribe`.

        Raises:
            LinkError: for a filter that is not well formed.
        """
        check_filter(topic_filter)
        with self._broker.lock:
            subscription = Subscription(topic_filter, queued)
            if self.subscriptions.add(subscription, sent=self.is_up) and self.is_up:
                self._broker.subscribe(self, subscription)

    def unsubscribe(self, topic_filter: str) -> None:
        """Undoes `subscribe`."""
        with self._broker.lock:
            self.subscriptions.remove(topic_filter)
            if self.is_up:
                self._broker.unsubscribe(self, topic_filter)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        timeout_s: float = 30.0,  # noqa: ARG002 - the contract's signature
    ) -> Delivery:
        """Delivers to every subscriber before it returns; see `Link.publish`."""
        with self._broker.lock:
            if not self.is_up:
                raise LinkDownError("there is no connection to the broker", "keep the message and try again")
            check_message(topic, payload, self.limits)
            self._broker.publish(topic, payload, retain=retain)
            return Taken()

    def ack(self, message: Received) -> None:
        """See `Link.ack`."""
        with self._broker.lock:
            if self.is_up:
                self._broker.settle(self, message.token)
