"""`fieldfold broker run`: Mosquitto in the foreground, the embedded broker where it must be, clear refusals."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from broker_config.mosquitto import find_mosquitto
from broker_config.ports import is_listening
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, LinkConfig
from fieldfold.trust.tls import client_context
from tests.conftest import RUN_COMMAND, EmbeddedBroker, Mosquitto, free_port

TIMEOUT_S = 10.0


def run(*arguments: str, path: str | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"} | ({"PATH": path} if path else {})
    return subprocess.Popen(
        [*RUN_COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(*arguments: str) -> tuple[int, str]:
    process = run(*arguments)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("path", [None, "/nowhere"], ids=["on PATH", "only in /usr/sbin"])
def test_it_becomes_mosquitto_which_reads_its_keys_whoever_starts_it(tmp_path: Path, path: str | None) -> None:
    port = free_port()
    initialise(tmp_path / "my broker", port=port)
    configuration = BrokerFolder(tmp_path / "my broker").configuration
    written = configuration.read_bytes()

    process = run(str(tmp_path / "my broker"), path=path)
    try:
        said = first_line(process)
        wait_for(port)
        program = Path(f"/proc/{process.pid}/exe").resolve()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)

    assert said == f"{find_mosquitto()}: port {port} on 127.0.0.1\n"
    assert program == find_mosquitto()
    assert process.returncode == 0
    assert configuration.read_bytes() == written
    assert (tmp_path / "my broker" / "data" / "mosquitto.db").is_file()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_listening(port, "127.0.0.1"):
        assert time.monotonic() < deadline, f"nobody listens on {port}"
        time.sleep(0.02)
    # Mosquitto listens before it minds signals; when it hangs up on what is no TLS, its loop runs.
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"this is no handshake\r\n" * 20)
        while connection.recv(1024):
            pass


def test_a_port_in_use_is_named_with_the_command_that_moves_it(mosquitto: Mosquitto) -> None:
    code, errors = finished(str(mosquitto.directory))

    assert code == 5
    assert f"port {mosquitto.port} on 127.0.0.1 is in use" in errors
    assert f"fieldfold broker init {mosquitto.directory} --port N" in errors


def test_a_folder_that_is_no_brokers_is_refused(tmp_path: Path) -> None:
    code, errors = finished(str(tmp_path))

    assert code == 2
    assert f"fieldfold broker init {tmp_path}" in errors


def test_a_port_for_mosquitto_is_refused_not_ignored(tmp_path: Path) -> None:
    initialise(tmp_path / "broker")

    code, errors = finished(str(tmp_path / "broker"), "--port", "2000")

    assert code == 2
    assert "--port is for the embedded broker" in errors


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_embedded_broker_warns_serves_and_stops_cleanly(signum: signal.Signals) -> None:
    port, port_v311 = free_port(), free_port()

    process = run("--embedded", "--port", str(port), "--port-v311", str(port_v311))
    said = first_line(process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=TIMEOUT_S)

    assert said == f"listening on mqtt://127.0.0.1:{port} (MQTT 5) and mqtt://127.0.0.1:{port_v311} (MQTT 3.1.1)\n"
    assert process.returncode == 0
    assert "no TLS and no identities" in errors
    assert "nothing is kept" in errors
    assert "this machine only" in errors
    assert "Traceback" not in errors


def test_the_embedded_broker_names_a_port_in_use(embedded_broker: EmbeddedBroker) -> None:
    code, errors = finished("--embedded", "--port", str(embedded_broker.port))

    assert code == 5
    assert f"port {embedded_broker.port} on 127.0.0.1 is in use" in errors
    assert "--port" in errors


def test_without_the_embedded_package_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['iotcore'] = None\n"
        "from fieldfold.cli.main import main; main(['broker', 'run', '--embedded'])"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert "pip install 'fieldfold[embedded]'" in result.stderr


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_the_embedded_broker_carries_a_full_chunk(
    embedded_broker: EmbeddedBroker, protocol: MQTTProtocolVersion
) -> None:
    heard: queue.Queue[bytes] = queue.Queue()
    subscribed: queue.Queue[int] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, f"run-{protocol.name}", protocol=protocol)
    client.on_message = lambda _client, _data, message: heard.put(bytes(message.payload))
    client.on_subscribe = lambda _client, _data, mid, _reasons, _properties: subscribed.put(mid)
    is_v5 = protocol is MQTTProtocolVersion.MQTTv5
    client.connect("127.0.0.1", embedded_broker.port if is_v5 else embedded_broker.port_v311)
    client.loop_start()
    try:
        client.subscribe(f"fieldfold/run-{protocol.name}/#", qos=1)
        subscribed.get(timeout=TIMEOUT_S)
        client.publish(f"fieldfold/run-{protocol.name}/node/press-07/update", bytes(60 * 1024), qos=1)

        assert heard.get(timeout=TIMEOUT_S) == bytes(60 * 1024)
    finally:
        client.disconnect()
        client.loop_stop()


def test_the_broker_serves_on_when_its_caretaker_is_killed(own_mosquitto: Mosquitto) -> None:
    own_mosquitto.stop()
    own_mosquitto.attended = True
    own_mosquitto.start()
    (caretaker,) = psutil.Process(own_mosquitto.pid).children()

    caretaker.kill()
    wait_for(own_mosquitto.port)  # a handshake that fails is written to a log that nobody reads any more
    wait_for(own_mosquitto.port)

    assert psutil.pid_exists(own_mosquitto.pid)


def test_the_caretaker_ends_when_its_broker_was_killed(own_mosquitto: Mosquitto) -> None:
    own_mosquitto.stop()
    own_mosquitto.attended = True
    own_mosquitto.start()
    (caretaker,) = psutil.Process(own_mosquitto.pid).children()

    own_mosquitto.kill()

    assert psutil.wait_procs([caretaker], timeout=TIMEOUT_S) == ([caretaker], [])


def test_a_broker_that_reads_its_rules_again_and_again_while_gateways_are_away_serves_on(
    own_mosquitto: Mosquitto,
) -> None:
    """Mosquitto 2.0.11 crashes here within two rounds where sessions end by themselves."""
    files = [own_mosquitto.add_identity(f"press-{number}") for number in range(4)]

    for _ in range(4):
        for _ in range(2):
            for each in files:
                config = LinkConfig(
                    url=own_mosquitto.url, ca=str(each.ca), certificate=str(each.certificate), key=str(each.key)
                )
                link = MqttLink(config, client_id=each.key.stem, base=Path())
                link.start()
                while not isinstance(link.events.get(timeout=TIMEOUT_S), Connected):
                    pass
                link.stop()
            os.kill(own_mosquitto.pid, signal.SIGHUP)
            time.sleep(0.3)

    assert psutil.Process(own_mosquitto.pid).status() != psutil.STATUS_ZOMBIE
    wait_for(own_mosquitto.port)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_was_retained_and_saved_survives(own_mosquitto: Mosquitto, how: str) -> None:
    heard: queue.Queue[bytes] = queue.Queue()
    files = own_mosquitto.identity("aggregator")
    topic = "fieldfold/run/model/manifest"

    def subscribe(client: paho.Client, *_: object) -> None:
        client.subscribe(topic, qos=1)

    client = paho.Client(CallbackAPIVersion.VERSION2, "run-retained", protocol=paho.MQTTv5)
    client.tls_set_context(client_context(files.ca, files.certificate, files.key))
    client.on_message = lambda _client, _data, message: heard.put(bytes(message.payload))
    client.on_connect = subscribe
    client.connect("localhost", own_mosquitto.port)
    client.loop_start()
    try:
        client.publish(topic, b"version 4", qos=1, retain=True)
        assert heard.get(timeout=TIMEOUT_S) == b"version 4"
        # SIGUSR1 saves at once, as the interval in mosquitto.conf does every 15 seconds.
        os.kill(own_mosquitto.pid, signal.SIGUSR1)
        wait_for_file(own_mosquitto.directory / "data" / "mosquitto.db")

        getattr(own_mosquitto, how)()
        own_mosquitto.start()

        assert heard.get(timeout=TIMEOUT_S) == b"version 4"
    finally:
        client.disconnect()
        client.loop_stop()


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.02)
