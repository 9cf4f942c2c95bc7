"""One paho client for one TCP connection, from CONNECT to its end; never used a second time.

A fresh client for each connection leaves nothing behind: no queue that is sent again on its own, no half-read packet,
no acknowledgement of a packet identifier that means another message by now.
"""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fieldfold.errors import FieldfoldError, LinkDownError
from fieldfold.link import limits, reasons
from fieldfold.link.acks import AckBook
from fieldfold.link.endpoint import Endpoint
from fieldfold.link.reconnect import Outcome
from fieldfold.link.session import BrokerLimits, Event, LinkConfig, Received, Refused, Will
from fieldfold.link.subscriptions import Subscription
from fieldfold.link.tls_socket import RememberingSocket
from fieldfold.link.wakeup import WakeablePoll
from fieldfold.link.window import Flight, SendWindow
from fieldfold.trust.tls import explain_tls_failure

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

CONNECT_TIMEOUT_S = 5.0
CONNACK_TIMEOUT_S = 15.0
TICK_S = 1.0
"""How often keepalive and deadlines are looked at."""
UNREAD_BEFORE_DROPPING = 1000
"""QoS 0 messages, which no window holds back, are dropped while this many events wait to be read."""
REFUSALS_REPORTED = 32
"""Topics whose refusal is reported in one connection; a forbidden topic is published to again and again."""


class Caller(msgspec.Struct, frozen=True):
    """Who connects, where to and on what terms; the same for every connection of a link."""

    endpoint: Endpoint
    client_id: str
    config: LinkConfig
    events: SimpleQueue[Event]
    tokens: Iterator[int]


class Ended(msgspec.Struct, frozen=True):
    """How a connection ended."""

    outcome: Outcome
    reason: str
    refused: Refused | None = None
    up_s: float = 0.0


class Connection:
    """Made and run by the link's thread; publish, ack and subscribe from any thread.

    Args:
        caller: who connects.
        will: published by the broker when this connection dies without a DISCONNECT.
        protocol: the version of MQTT to speak.
        on_up: called when CONNACK has come, with whether the broker kept our session, before anything is received.
        on_granted: called with each filter that the broker confirmed.
    """

    def __init__(
        self,
        caller: Caller,
        will: Will | None,
        protocol: Literal["5", "3.1.1"],
        on_up: Callable[[Connection, bool], None],
        on_granted: Callable[[str], None],
    ) -> None:
        self._caller = caller
        self._on_up = on_up
        self._on_granted = on_granted
        self.protocol: Literal["5", "3.1.1"] = protocol
        self.limits = BrokerLimits(protocol=protocol)
        self._client = _paho_client(caller, will, protocol)
        self._poll = WakeablePoll()
        self._lock = threading.Lock()
        self._book = AckBook()
        self._window = SendWindow(self._publish_refused)
        self._subscribing: dict[int, str] = {}
        self._reported: set[tuple[str, int]] = set()
        self._up_since_s: float | None = None
        self._ended: Ended | None = None
        self._listen()

    # -- the link's thread --

    def run(self, stopping: threading.Event, goodbye_s: Callable[[], float]) -> Ended:
        """Connects and serves until the connection ends, or until `stopping` and then a DISCONNECT.

        `goodbye_s` tells how long that last packet may take.
        """
        with self._poll:
            try:
                return self._open() or self._serve(stopping, goodbye_s)
            finally:
                self._window.close()
                if (sock := self._client.socket()) is not None:
                    sock.close()

    def _open(self) -> Ended | None:
        endpoint = self._caller.endpoint
        try:
            context = endpoint.context()
        except FieldfoldError as error:
            return Ended(Outcome.UNREACHABLE, error.reason, Refused(error.reason, error.hint))
        if context is not None:
            context.sslsocket_class = RememberingSocket
            self._client.tls_set_context(context)
        try:
            self._client.connect(
                endpoint.host,
                endpoint.port,
                self._caller.config.keepalive_s,
                **_persistent(self.protocol, self._caller.config),
            )
        except ssl.SSLError as error:
            return self._tls_failure(error)
        except OSError as error:
            return Ended(Outcome.UNREACHABLE, reasons.unreachable(error, str(endpoint)))
        return None

    def _serve(self, stopping: threading.Event, goodbye_s: Callable[[], float]) -> Ended:
        began_s, leave_at_s = time.monotonic(), math.inf
        first = self._client.socket()
        while (sock := self._client.socket()) is not None:
            now_s = time.monotonic()
            if stopping.is_set() and leave_at_s == math.inf:
                leave_at_s = now_s + goodbye_s()
                self._client.disconnect()
            silent = self._up_since_s is None and now_s > began_s + CONNACK_TIMEOUT_S
            if now_s >= leave_at_s or silent or not self._exchange(sock):
                break
        if self._up_since_s is None and isinstance(first, RememberingSocket) and first.failure is not None:
            return self._tls_failure(first.failure)
        return self._ending()

    def _exchange(self, sock: SocketLike) -> bool:
        """Waits for something to do and does it; whether the connection lives on."""
        client = self._client
        decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        readable = self._poll.wait(
            sock.fileno(), for_room=client.want_write(), timeout_s=0.0 if decrypted else TICK_S
        )
        # Reading comes first: a refusal that already lies there would be lost with a write that fails.
        if (decrypted or readable) and client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        if client.want_write() and client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        return client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _ending(self) -> Ended:
        if self._ended is None:
            where = self._caller.endpoint
            if self._up_since_s is None:
                return Ended(
                    Outcome.UNANSWERED, f"{where}: the broker did not answer an MQTT {self.protocol} CONNECT"
                )
            self._ended = Ended(Outcome.UP, f"{where}: the connection was lost")
        if self._up_since_s is None:
            return self._ended
        return msgspec.structs.replace(self._ended, up_s=time.monotonic() - self._up_since_s)

    def _tls_failure(self, error: ssl.SSLError) -> Ended:
        reason, hint = explain_tls_failure(error, self._caller.endpoint.host)
        return Ended(Outcome.UNREACHABLE, reason, Refused(reason, hint))

    # -- any thread --

    def wake(self) -> None:
        """Makes the link's thread look up."""
        self._poll.wake()

    @property
    def window(self) -> SendWindow:
        """The publishes on their way."""
        return self._window

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> Flight:
        """Sends a message for which `window.enter` got a place.

        Raises:
            LinkDownError: when the connection has just ended.
        """
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDownError("the link went down while a message was sent")
        return self._window.launch(info.mid, topic)

    def ack(self, token: int) -> None:
        """Acknowledges a message of this connection, as soon as all before it are."""
        # paho only queues here, so holding the lock keeps the order without holding anybody up.
        with self._lock:
            for identifier in self._book.settle(token):
                self._client.ack(identifier, qos=1)

    def subscribe(self, subscription: Subscription) -> None:
        """Sends SUBSCRIBE; under MQTT 5 retained messages come only where the session did not hold the filter."""
        qos = subscription.qos
        options: Any = {"qos": qos}
        if self.protocol == "5":
            options = {"options": SubscribeOptions(qos=qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)}
        with self._lock:
            _, identifier = self._client.subscribe(subscription.topic_filter, **options)
            if identifier is not None:
                self._subscribing[identifier] = subscription.topic_filter

    def unsubscribe(self, topic_filter: str) -> None:
        """Sends UNSUBSCRIBE."""
        self._client.unsubscribe(topic_filter)

    # -- paho's callbacks, in the link's thread --

    def _listen(self) -> None:
        client = self._client
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        # With this set paho never writes from the threads of others; they queue, and the link's thread writes.
        client.on_socket_register_write = lambda *_: self._poll.wake()

    def _connected(
        self, _client: Client, _data: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        where, caller = str(self._caller.endpoint), self._caller
        if code.value == 0x84:
            self._ended = Ended(Outcome.UNSUPPORTED, f"{where}: the broker does not speak MQTT {self.protocol}")
            return
        if code.is_failure:
            refused = reasons.connect_refused(code.value, str(code), where)
            reason = refused.reason if refused else f"{where}: not now: {code}"
            self._ended = Ended(Outcome.REFUSED, reason, refused)
            return
        self.limits = limits.broker_limits(
            caller.config.message_bytes,
            self.protocol,
            maximum_packet_bytes=getattr(properties, "MaximumPacketSize", None),
            receive_maximum=getattr(properties, "ReceiveMaximum", None),
            retain_available=bool(getattr(properties, "RetainAvailable", 1)),
        )
        if getattr(properties, "MaximumQoS", 1) == 0:
            caller.events.put(Refused(f"{where} offers QoS 0 only", "allow QoS 1 in the broker's configuration"))
        self._up_since_s = time.monotonic()
        self._window.open(min(caller.config.window, self.limits.receive_maximum))
        self._on_up(self, flags.session_present)

    def _disconnected(
        self, _client: Client, _data: Any, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._ended is not None or self._up_since_s is None:
            return
        where = self._caller.endpoint
        if flags.is_disconnect_packet_from_server:
            refused = reasons.session_ended(code.value, str(code), self._caller.client_id)
            reason = refused.reason if refused else f"{where}: the broker ended the session: {code}"
            outcome = Outcome.TAKEN_OVER if code.value == reasons.SESSION_TAKEN_OVER else Outcome.UP
            self._ended = Ended(outcome, reason, refused)
        elif code.value == 0x8D:
            self._ended = Ended(Outcome.UP, f"{where}: no sign of life within the keepalive")
        self._window.close()

    def _received(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        token, events = next(self._caller.tokens), self._caller.events
        if message.qos == 0 and events.qsize() >= UNREAD_BEFORE_DROPPING:
            return
        if message.qos > 0:
            with self._lock:
                self._book.receive(token, message.mid)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            # Nobody can have subscribed to it by name; kept, it would block the window for ever.
            self.ack(token)
            return
        events.put(Received(topic, bytes(message.payload), message.retain, token))

    def _published(
        self, _client: Client, _data: Any, identifier: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._window.settle(identifier, code.value)

    def _publish_refused(self, topic: str, code: int) -> None:
        if (topic, code) not in self._reported and len(self._reported) < REFUSALS_REPORTED:
            self._reported.add((topic, code))
            self._caller.events.put(reasons.publish_refused(topic, code))

    def _subscribed(
        self, _client: Client, _data: Any, identifier: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        with self._lock:
            topic_filter = self._subscribing.pop(identifier, None)
        if topic_filter is None:
            return
        if any(code.is_failure for code in codes):
            self._caller.events.put(reasons.subscribe_refused(topic_filter, str(codes[0])))
        else:
            self._on_granted(topic_filter)


def _paho_client(caller: Caller, will: Will | None, protocol: Literal["5", "3.1.1"]) -> Client:
    version = MQTTProtocolVersion.MQTTv5 if protocol == "5" else MQTTProtocolVersion.MQTTv311
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=caller.client_id,
        clean_session=None if protocol == "5" else False,
        protocol=version,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(0)  # SendWindow limits them, so paho never holds one back
    if caller.endpoint.username is not None:
        client.username_pw_set(caller.endpoint.username, caller.endpoint.password)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    return client


def _persistent(protocol: Literal["5", "3.1.1"], config: LinkConfig) -> dict[str, Any]:
    if protocol == "3.1.1":
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it untyped
    properties.SessionExpiryInterval = config.session_expiry_s
    properties.ReceiveMaximum = limits.RECEIVE_MAXIMUM
    properties.MaximumPacketSize = limits.LARGEST_PACKET_BYTES
    return {"clean_start": False, "properties": properties}
