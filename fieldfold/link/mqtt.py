"""The MQTT session of a program: one thread that connects, serves and connects again, for ever."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from pathlib import Path

from fieldfold.errors import LinkDownError, LinkError
from fieldfold.link.connection import Caller, Connection, Ended
from fieldfold.link.endpoint import resolve
from fieldfold.link.limits import check_message
from fieldfold.link.pace import Pace
from fieldfold.link.reasons import short_sessions
from fieldfold.link.reconnect import ProtocolChoice, Retries
from fieldfold.link.session import (
    BrokerLimits,
    Connected,
    Delivery,
    Disconnected,
    Event,
    LinkConfig,
    Received,
    Refused,
    Will,
)
from fieldfold.link.subscriptions import Subscription, Subscriptions
from fieldfold.link.topic_filter import check_filter


class MqttLink:
    """A `Link` over MQTT 5, or 3.1.1 where the broker speaks no other.

    Args:
        config: the `[broker]` table.
        client_id: the name of the broker's persistent session; two links must never share one.
        base: the folder that paths in `config` are relative to.
        will: published by the broker when this link dies without `stop`.

    Raises:
        LinkError: when `config` contradicts itself; files are looked at in `start`.
    """

    def __init__(self, config: LinkConfig, *, client_id: str, base: Path, will: Will | None = None) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.will = will
        self._caller = Caller(
            endpoint=resolve(config, base),
            client_id=client_id,
            config=config,
            events=self.events,
            tokens=itertools.count(1),
        )
        self._config = config
        self._pace = Pace(config.messages_per_s, config.bytes_per_s, time.monotonic)
        self._lock = threading.Lock()
        self._subscriptions = Subscriptions()
        self._limits = BrokerLimits(message_bytes=config.message_bytes)
        self._connection: Connection | None = None
        self._up: Connection | None = None
        self._stopping = threading.Event()
        self._goodbye_s = 0.0
        self._last_refusal: Refused | None = None
        self._thread = threading.Thread(target=self._run, name=f"link-{client_id}", daemon=True)

    def start(self) -> None:
        """Begins connecting and returns at once; see `Link.start`."""
        if self._stopping.is_set() or self._thread.ident is not None:
            raise LinkError("a link can be started only once", "make a new one")
        self._caller.endpoint.context()
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Says goodbye and ends the thread; what is on its way by then counts as failed."""
        self._goodbye_s = timeout_s / 2
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def limits(self) -> BrokerLimits:
        """Those of the present connection, or of the last one."""
        return self._limits

    @property
    def is_up(self) -> bool:
        """Whether a message could be sent now."""
        return self._up is not None

    def subscribe(self, topic_filter: str, *, queued: bool = True) -> None:
        """Subscribes, now and again after each connect; see `Link.subscribe`.

        Raises:
            LinkError: for a filter that is not well formed.
        """
        check_filter(topic_filter)
        subscription = Subscription(topic_filter, queued)
        with self._lock:
            up = self._up
            if self._subscriptions.add(subscription, sent=up is not None) and up is not None:
                up.subscribe(subscription)

    def unsubscribe(self, topic_filter: str) -> None:
        """Undoes `subscribe`; a later `subscribe` brings the retained messages again."""
        with self._lock:
            self._subscriptions.remove(topic_filter)
            if self._up is not None:
                self._up.unsubscribe(topic_filter)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0) -> Delivery:
        """Sends with QoS 1; see `Link.publish`. Without `retain` where the broker keeps nothing."""
        connection = self._up
        if connection is None:
            raise LinkDownError(
                f"there is no connection to {self._caller.endpoint}", "it comes back by itself; keep the message"
            )
        check_message(topic, payload, connection.limits)
        deadline_s = time.monotonic() + timeout_s
        connection.window.enter(timeout_s)
        try:
            connection.window.pause(self._reserved_wait_s(len(payload), deadline_s - time.monotonic()))
            return connection.publish(topic, payload, retain=retain and connection.limits.retain_available)
        except LinkDownError:
            connection.window.leave()
            raise

    def ack(self, message: Received) -> None:
        """Tells the broker that `message` is safe; see `Link.ack`."""
        connection = self._up
        if connection is not None:
            connection.ack(message.token)

    def _reserved_wait_s(self, size_bytes: int, patience_s: float) -> float:
        wait_s = self._pace.reserve(size_bytes, patience_s)
        if wait_s is None:
            raise LinkDownError(
                f"the sending pace has no room for {size_bytes} bytes within {patience_s:.0f} s",
                "send less, or raise messages_per_s and bytes_per_s under [broker]",
            )
        return wait_s

    # -- the thread --

    def _run(self) -> None:
        choice, retries = ProtocolChoice(), Retries()
        jitter = random.Random()  # noqa: S311 - spreads reconnects over time, guards nothing
        try:
            while not self._stopping.is_set():
                self._connection = Connection(self._caller, self.will, choice.protocol, self._came_up, self._granted)
                ended = self._connection.run(self._stopping, lambda: self._goodbye_s)
                choice.note(ended.outcome)
                retries.note(ended.outcome, ended.up_s)
                self._went_down(ended)
                if retries.looks_cloned and ended.refused is None:
                    self.events.put(short_sessions(self._caller.client_id))
                self._stopping.wait(retries.wait_s(jitter.random()))
        finally:
            self._up = None
            self.events.put(Disconnected("the link was stopped"))

    def _came_up(self, connection: Connection, session_present: bool) -> None:  # noqa: FBT001 - paho's flag
        with self._lock:
            self._limits, self._up, self._last_refusal = connection.limits, connection, None
            self.events.put(Connected(session_present, connection.limits))
            withdrawn, wanted = self._subscriptions.due(connection.protocol, session_present=session_present)
            for topic_filter in withdrawn:
                connection.unsubscribe(topic_filter)
            for subscription in wanted:
                connection.subscribe(subscription)

    def _granted(self, topic_filter: str) -> None:
        with self._lock:
            self._subscriptions.grant(topic_filter)

    def _went_down(self, ended: Ended) -> None:
        with self._lock:
            self._up = None
        if ended.refused is not None and ended.refused != self._last_refusal:
            self._last_refusal = ended.refused
            self.events.put(ended.refused)
        if not self._stopping.is_set():
            self.events.put(Disconnected(ended.reason))
