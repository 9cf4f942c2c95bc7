"""What refusals and failures mean, in words a person can act on."""

from __future__ import annotations

import socket

from fieldfold.link.session import Refused

_PERMISSION_HINT = "permit it in the broker's access list, or connect as the identity that may"

SESSION_TAKEN_OVER = 0x8E
"""DISCONNECT reason code (MQTT 5, 3.14.2.1)."""

_CONNECT_HINTS = {
    0x81: "check that a proxy or firewall does not change MQTT traffic",
    0x85: "choose another client identifier; the broker does not take this one",
    0x86: "check username and password_file, and the broker's password file",
    0x87: "check that the broker knows this certificate's name or this user",
    0x8A: "this client is banned; ask whoever runs the broker",
    0x8C: "the broker wants another way to authenticate; use a certificate or a password",
    0x90: "the broker's access list does not permit the topic of the will",
    0x95: "the will is too large for this broker",
    0x9A: "the broker keeps no retained messages, which the will asks for",
    0x9B: "the broker must allow QoS 1",
}
"""CONNACK reason codes (MQTT 5, 3.2.2.2) that stay until somebody mends them; the others pass."""


def connect_refused(code: int, name: str, where: str) -> Refused | None:
    """A failed CONNACK as an event, or None when it will pass by itself."""
    hint = _CONNECT_HINTS.get(code)
    return None if hint is None else Refused(f"{where} refused the connection: {_lower(name)}", hint)


def subscribe_refused(topic_filter: str, name: str) -> Refused:
    """A failed SUBACK as an event."""
    return Refused(f"the broker refused the subscription to {topic_filter}: {_lower(name)}", _PERMISSION_HINT)


def publish_refused(topic: str, code: int) -> Refused:
    """A failed PUBACK (MQTT 5, 3.4.2.1) as an event."""
    if code == 0x87:
        return Refused(f"the broker does not permit publishing to {topic}", _PERMISSION_HINT)
    if code == 0x97:
        return Refused(f"the broker refused a message to {topic}: quota exceeded", "raise the quota or send less")
    return Refused(f"the broker refused a message to {topic}: reason code 0x{code:02X}", "see the broker's log")


def session_ended(code: int, name: str, client_id: str) -> Refused | None:
    """A DISCONNECT sent by the broker as an event, where somebody must act on it."""
    if code == SESSION_TAKEN_OVER:
        return session_taken_over(client_id)
    if code in {0x87, 0x98}:
        return Refused(
            f"the broker ended the session of {client_id}: {_lower(name)}",
            "ask whoever runs the broker whether access was withdrawn",
        )
    return None


def session_taken_over(client_id: str) -> Refused:
    """The event for a session that another client of the same name took."""
    return Refused(
        f"another program connected as {client_id} and took over the session",
        "stop the other one, or give each its own name and certificate",
        lasting=True,
    )


def short_sessions(client_id: str) -> Refused:
    """The event for sessions that end soon after they begin, time and again, and nobody says why.

    It says what may be, in the log; a bad link does the same, so that it is nothing to act on.
    """
    return Refused(
        f"the sessions of {client_id} keep ending soon after they begin",
        f"the network is unstable, or another program uses the name {client_id}: then give each its own",
    )


def unreachable(error: OSError, where: str) -> str:
    """Why no connection came about."""
    if isinstance(error, ConnectionRefusedError):
        return f"{where}: nobody listens there"
    if isinstance(error, socket.gaierror):
        return f"{where}: the host name is not known"
    if isinstance(error, TimeoutError):
        return f"{where}: no answer"
    if isinstance(error, ConnectionResetError):
        return f"{where}: the connection was cut before it was secure; does this port speak TLS?"
    return f"{where}: {_lower(error.strerror or str(error) or type(error).__name__)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
