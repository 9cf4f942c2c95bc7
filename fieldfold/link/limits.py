"""What a broker allows, from the properties of its CONNACK; and the check of a message against it."""

from __future__ import annotations

from typing import Literal

from fieldfold.errors import LinkError
from fieldfold.link.session import BrokerLimits
from fieldfold.link.topic_filter import MAX_TOPIC_BYTES, check_topic

HEADER_ROOM_BYTES = 5 + 2 + MAX_TOPIC_BYTES + 2 + 1
"""What a PUBLISH holds beside its payload at most: fixed header, topic and its length, packet identifier, and
the length of its (empty) properties."""

UNSTATED_RECEIVE_MAXIMUM = 65_535
"""What MQTT 5 (3.2.2.3.3) assumes where CONNACK is silent."""

LARGEST_PACKET_BYTES = 1_048_576 + HEADER_ROOM_BYTES
"""The most we let a broker send us: the largest `LinkConfig.message_bytes` that a peer can be configured to."""

RECEIVE_MAXIMUM = 64
"""Messages that a broker may hand us before we acknowledge the first."""


def broker_limits(
    message_bytes: int,
    protocol: Literal["5", "3.1.1"],
    *,
    maximum_packet_bytes: int | None = None,
    receive_maximum: int | None = None,
    retain_available: bool = True,
) -> BrokerLimits:
    """The limits of a connection; `message_bytes` is the configured one, the others stood in CONNACK or are None."""
    if protocol == "3.1.1":
        return BrokerLimits(message_bytes=message_bytes, protocol=protocol)
    if maximum_packet_bytes is not None:
        message_bytes = max(0, min(message_bytes, maximum_packet_bytes - HEADER_ROOM_BYTES))
    return BrokerLimits(
        message_bytes=message_bytes,
        receive_maximum=receive_maximum or UNSTATED_RECEIVE_MAXIMUM,
        retain_available=retain_available,
        protocol=protocol,
    )


def check_message(topic: str, payload: bytes, limits: BrokerLimits) -> None:
    """Refuses what the broker would cut the connection for, again and again.

    Raises:
        LinkError: when the topic or the size of the payload is not allowed.
    """
    check_topic(topic)
    if len(payload) > limits.message_bytes:
        raise LinkError(
            f"a message of {len(payload)} bytes to {topic} exceeds the {limits.message_bytes} bytes allowed",
            "send it in smaller chunks, or raise message_bytes and the broker's maximum packet size",
        )
