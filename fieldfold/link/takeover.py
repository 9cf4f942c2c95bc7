"""Ends somebody's session: MQTT knows one session a client id, and whoever comes last has it."""

from __future__ import annotations

import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fieldfold.errors import LinkError
from fieldfold.link.endpoint import Endpoint
from fieldfold.trust.tls import explain_tls_failure


def end_session(endpoint: Endpoint, client_id: str, timeout_s: float = 2.0) -> None:
    """Takes the session `client_id` over, empty, and gives it up: its connection, queue and subscriptions are gone.

    Raises:
        LinkError: when the broker does not let us.
    """
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect_timeout = timeout_s
    if (context := endpoint.context()) is not None:
        client.tls_set_context(context)
    nothing_kept = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it untyped
    nothing_kept.SessionExpiryInterval = 0
    try:
        client.connect(endpoint.host, endpoint.port, clean_start=True, properties=nothing_kept)
        deadline_s = time.monotonic() + timeout_s
        while not client.is_connected() and time.monotonic() < deadline_s:
            if client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        if not client.is_connected():
            raise LinkError(f"{endpoint}: the session {client_id!r} could not be ended", "see the broker's log")
        client.disconnect()
        client.loop(0.1)
    except OSError as error:
        raise LinkError(*explain_tls_failure(error, str(endpoint))) from None
