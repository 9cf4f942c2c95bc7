"""What a program may ask of its link and what the link tells it; both implementations keep to it."""

from __future__ import annotations

import queue
from typing import Annotated, Literal, Protocol, TypeAlias

import msgspec

DEFAULT_MESSAGE_BYTES = 60 * 1024
FOR_EVER = (1 << 32) - 1
"""The session expiry interval of MQTT 5 that has no end."""


class BrokerLimits(msgspec.Struct, frozen=True):
    """What the broker allows, read from CONNACK; defaults where it does not say (MQTT 3.1.1 never does)."""

    message_bytes: int = DEFAULT_MESSAGE_BYTES
    """Largest payload we send: the smaller of the configured limit and the broker's maximum packet size,
    less the room that topic and header need."""
    receive_maximum: int = 20
    retain_available: bool = True
    protocol: Literal["5", "3.1.1"] = "5"


class Connected(msgspec.Struct, frozen=True):
    """The session is up. `session_present`: the broker kept our subscriptions and queue."""

    session_present: bool
    limits: BrokerLimits


class Disconnected(msgspec.Struct, frozen=True):
    """The session is down; the link tries again by itself, with backoff, for ever."""

    reason: str


class Received(msgspec.Struct, frozen=True):
    """A message. If it was queued for us it stays the broker's to redeliver until `Link.ack(received)`."""

    topic: str
    payload: bytes
    retained: bool
    token: int


class Refused(msgspec.Struct, frozen=True):
    """The broker (or TLS) refused something a person must mend: certificate, password, topic.

    `lasting`: a connection that comes up does not show that it is mended, as long as it has not lasted.
    """

    reason: str
    hint: str
    lasting: bool = False


Event: TypeAlias = Connected | Disconnected | Received | Refused


class Will(msgspec.Struct, frozen=True):
    """Published by the broker when the session dies without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[broker]` table of a configuration file; paths are relative to that file."""

    url: Annotated[
        str,
        msgspec.Meta(pattern=r"^mqtts?://[^/@]+$", description="for example mqtts://broker.plant:8883"),
    ]
    """`mqtts://host:8883` (mutual TLS), or `mqtt://127.0.0.1:1883` without TLS on loopback only."""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    username: str = ""
    password_file: str = ""
    allow_plain: bool = False
    """Permits `mqtt://` to an address that is not loopback."""
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 60
    session_expiry_s: Annotated[int, msgspec.Meta(ge=0, le=FOR_EVER)] = FOR_EVER
    """How long the broker keeps our session while we are away.

    Mosquitto 2.0 counts a session twice that ends by itself and whose client is away while the rules are reloaded,
    and may crash when it has ended. One that lasts for ever, or ends with its connection (0), is not counted.
    """
    message_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1_048_576)] = DEFAULT_MESSAGE_BYTES
    window: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    """Publishes that may be on their way at once."""
    messages_per_s: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    bytes_per_s: Annotated[float, msgspec.Meta(gt=0)] = 450_000.0


class Delivery(Protocol):
    """One publish on its way."""

    def wait(self, timeout_s: float) -> bool:
        """Blocks until the broker has acknowledged the message; False when the time ran out or the link died."""


class Link(Protocol):
    """One MQTT session. Thread-safe. Everything that happens arrives in `events`, in order.

    `will` counts from the next connection on.
    """

    events: queue.SimpleQueue[Event]
    will: Will | None

    def start(self) -> None:
        """Begins connecting and returns at once; the outcome arrives in `events`.

        Raises:
            LinkError: when the configuration itself cannot work (a certificate that is not there).
        """

    def stop(self, timeout_s: float = 2.0) -> None:
        """Says goodbye (no will is published) and ends the session's thread."""

    @property
    def limits(self) -> BrokerLimits:
        """Those of the present connection, or of the last one."""

    @property
    def is_up(self) -> bool:
        """Whether a message could be sent now."""

    def subscribe(self, topic_filter: str, *, queued: bool = True) -> None:
        """Subscribes, now and again after each connect. Retained messages arrive the first time only.

        With QoS 1, so that the broker keeps what comes while we are away; or, not `queued`, with QoS 0: what we miss
        is gone, and costs nothing when we are back.
        """

    def unsubscribe(self, topic_filter: str) -> None:
        """Undoes `subscribe`."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0) -> Delivery:
        """Sends with QoS 1; waits while the window is full or the pace is used up.

        Raises:
            LinkDownError: the session is down or the window stayed full for `timeout_s`; nothing was sent.
            LinkError: the message is larger than the broker allows.
        """

    def ack(self, message: Received) -> None:
        """Tells the broker that `message` is safe with us. Acknowledgements of a former connection are dropped."""
