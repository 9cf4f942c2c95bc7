"""The broker that comes with pip, for demonstrations and tests: loopback, in memory, no identities."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from broker_config.ports import is_listening, require_free
from fieldfold.errors import ConfigError, LinkError

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 1883
START_TIMEOUT_S = 5.0

WARNING = """\
The embedded broker is for trying things out on one machine:
  - no TLS and no identities: every program on this machine may read and write everything;
  - nothing is kept: sessions, queues and the released model are gone when it stops;
  - reachable from this machine only.
For a plant: install Mosquitto, then `fieldfold broker init DIR` and `fieldfold broker run DIR`.
"""

# One payload of MQTT at most as large as the generated mosquitto.conf takes; rumqttd keeps a log in memory for every
# topic filter, at most segments times their size, 160 MiB here.
_CONFIGURATION = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 10
"""

_LISTENER = """\
[{version}.1]
name = "{version}-1"
listen = "{address}:{port}"
next_connection_delay_ms = 1
    [{version}.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1114112
    max_inflight_count = 100
    dynamic_filters = true
"""


def configuration(port: int, port_v311: int) -> str:
    """TOML for rumqttd: MQTT 5 on `port` and MQTT 3.1.1 on `port_v311`, which rumqttd cannot put on one."""
    return (
        _CONFIGURATION
        + _LISTENER.format(version="v5", address=ADDRESS, port=port)
        + _LISTENER.format(version="v4", address=ADDRESS, port=port_v311)
    )


def run_embedded(port: int, port_v311: int, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; to be called in the main thread.

    Raises:
        ConfigError: the package iotcore is not installed.
        LinkError: a port cannot be had, or the broker does not come up.
    """
    try:
        from iotcore import IotCoreBroker  # noqa: PLC0415 - an extra that most machines do not have
    except ImportError:
        raise ConfigError(
            "the embedded broker needs the package iotcore, which is not installed here",
            "pip install 'fieldfold[embedded]', or install Mosquitto",
        ) from None
    for each in (port, port_v311):
        require_free(each, ADDRESS, "stop the other program, or choose another with --port")
    # rumqttd reports each message as an error record.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="fieldfold-broker-") as folder:
        path = Path(folder) / "rumqttd.toml"
        path.write_text(configuration(port, port_v311), encoding="utf-8")
        broker = IotCoreBroker(config_path=str(path))
        broker.start()
        _wait_until_listening((port, port_v311))
    announce(f"listening on mqtt://{ADDRESS}:{port} (MQTT 5) and mqtt://{ADDRESS}:{port_v311} (MQTT 3.1.1)")
    stop.wait()


def _wait_until_listening(ports: tuple[int, ...]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not all(is_listening(port, ADDRESS) for port in ports):
        if time.monotonic() > deadline:
            raise LinkError("the embedded broker did not start", "install Mosquitto instead")
        time.sleep(0.05)
