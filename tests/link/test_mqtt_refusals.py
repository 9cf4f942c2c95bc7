"""What a broker or TLS refuses is said in words, once, with what to do; and the link keeps trying."""

from __future__ import annotations

import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_config.folder import IdentityFiles
from broker_config.initialise import initialise
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Disconnected, Refused
from tests.conftest import Mosquitto, free_port
from tests.link.brokers import PlainMosquitto, plain_link, receive, wait_for

NewBroker = Callable[..., PlainMosquitto]
NewLink = Callable[..., MqttLink]

OWN_STATUS = "fieldfold/link-refusals/node/link-press/status"
FOREIGN_STATUS = "fieldfold/link-refusals/node/link-lathe/status"

DYNAMIC_SECURITY = """{
  "defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": false},
  "clients": [], "groups": [], "roles": []
}"""


@pytest.fixture
def node(mosquitto: Mosquitto) -> Iterator[MqttLink]:
    link = _secure_link(mosquitto.url, mosquitto.add_identity("link-press"))
    link.start()
    wait_for(link, Connected)
    yield link
    link.stop()


def _secure_link(url: str, files: IdentityFiles, *, ca: Path | None = None) -> MqttLink:
    return plain_link(
        url, "link-press", ca=str(ca or files.ca), certificate=str(files.certificate), key=str(files.key)
    )


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} comes with Mosquitto"
    return path


def test_a_node_publishes_its_own_topics_over_mutual_tls(node: MqttLink) -> None:
    assert node.publish(OWN_STATUS, b"ready").wait(5.0)


def test_a_forbidden_topic_is_refused_once_and_the_link_stays_up(node: MqttLink) -> None:
    for _ in range(3):
        assert not node.publish(FOREIGN_STATUS, b"forged").wait(5.0)
    refused = wait_for(node, Refused)
    assert refused.reason == f"the broker does not permit publishing to {FOREIGN_STATUS}"
    assert "access list" in refused.hint
    assert node.publish(OWN_STATUS, b"ready").wait(5.0)
    with pytest.raises(queue.Empty):
        node.events.get(timeout=0.2)


def test_a_forbidden_subscription_is_refused(plain_mosquitto: NewBroker, new_link: NewLink, tmp_path: Path) -> None:
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"))
    security = tmp_path / "security.json"
    security.write_text(DYNAMIC_SECURITY, encoding="utf-8")
    broker = plain_mosquitto(f"allow_anonymous true\nplugin {plugin}\nplugin_opt_config_file {security}")
    broker.start()
    link = new_link(broker.url, "reader")
    link.subscribe("secret/#")
    link.start()
    assert "refused the subscription to secret/#: not authorized" in wait_for(link, Refused).reason
    assert link.is_up


def test_a_broker_that_our_ca_did_not_sign_is_refused(mosquitto: Mosquitto, tmp_path: Path) -> None:
    initialise(tmp_path / "foreign", port=free_port())
    foreign_ca = next((tmp_path / "foreign").rglob("ca.crt"))
    link = _secure_link(mosquitto.url, mosquitto.add_identity("link-press"), ca=foreign_ca)
    link.start()
    refused = wait_for(link, Refused)
    link.stop()
    assert "is not signed by the CA that we trust" in refused.reason
    assert refused.hint


def test_a_certificate_that_the_broker_does_not_trust_is_refused(mosquitto: Mosquitto, tmp_path: Path) -> None:
    foreign = Mosquitto(tmp_path / "foreign", free_port())
    initialise(foreign.directory, port=foreign.port)
    stranger = foreign.add_identity("link-press")
    link = _secure_link(mosquitto.url, stranger, ca=mosquitto.identity("aggregator").ca)
    link.start()
    refused = wait_for(link, Refused)
    assert isinstance(link.events.get(timeout=5), Disconnected)
    time.sleep(1.5)
    link.stop()
    assert "our certificate" in refused.reason
    later = [link.events.get() for _ in range(link.events.qsize())]
    assert not any(isinstance(event, Refused) for event in later), "the same refusal is told once"


def test_tls_on_a_plain_port_is_named(mosquitto: Mosquitto, plain_mosquitto: NewBroker) -> None:
    plain = plain_mosquitto()
    plain.start()
    link = _secure_link(f"mqtts://localhost:{plain.port}", mosquitto.identity("aggregator"))
    link.start()
    assert "does this port speak TLS?" in wait_for(link, Disconnected).reason
    link.stop()


def test_plain_mqtt_on_a_tls_port_is_not_answered(mosquitto: Mosquitto, new_link: NewLink) -> None:
    link = new_link(f"mqtt://localhost:{mosquitto.port}", "plain")
    link.start()
    assert "did not answer" in wait_for(link, Disconnected).reason


def test_a_wrong_password_is_refused_and_the_right_one_taken(
    plain_mosquitto: NewBroker, new_link: NewLink, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run([_program("mosquitto_passwd"), "-b", str(passwords), "press-07", "right"], check=True)
    broker = plain_mosquitto(f"password_file {passwords}")
    broker.start()
    (tmp_path / "wrong").write_text("wrong\n", encoding="utf-8")
    (tmp_path / "right").write_text("right\n", encoding="utf-8")

    barred = new_link(broker.url, "a", base=tmp_path, username="press-07", password_file="wrong")  # noqa: S106 - a file
    barred.start()
    refused = wait_for(barred, Refused)
    assert "refused the connection: not authorized" in refused.reason
    assert "certificate's name or this user" in refused.hint

    anonymous = new_link(broker.url, "c")
    anonymous.start()
    wait_for(anonymous, Refused)

    welcome = new_link(broker.url, "b", base=tmp_path, username="press-07", password_file="right")  # noqa: S106 - a file
    welcome.subscribe("t")
    welcome.start()
    wait_for(welcome, Connected)
    assert welcome.publish("t", b"").wait(5.0)
    receive(welcome, 1)
