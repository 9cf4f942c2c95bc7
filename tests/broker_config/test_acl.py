"""Who may say and hear what, asked of a real Mosquitto with real clients."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_config.folder import IdentityFiles
from fieldfold.trust.tls import client_context
from tests.conftest import Mosquitto

TIMEOUT_S = 5.0
NODE = "press-07"
OTHER = "kiln-01"

NODE_WRITES = {f"node/{NODE}/{leaf}" for leaf in ("update", "status", "statistics", "renewal")}
CERTIFICATES = {f"node/{name}/certificate" for name in (NODE, OTHER)}
NODE_READS = {
    f"node/{NODE}/receipt",
    f"node/{NODE}/command",
    "model/manifest",
    "model/delta/4/0",
    "model/snapshot/4/0",
    "task/manifest",
    "task/bundle/00112233aabbccdd/0",
    "aggregator/status",
}
OTHERS_WRITE = {f"node/{OTHER}/{leaf}" for leaf in ("update", "status", "statistics", "renewal")}
OTHERS_READ = {f"node/{OTHER}/{leaf}" for leaf in ("receipt", "command")}
STRANGE = {f"node/{NODE}/update/more", f"node/{NODE}", "node", "elsewhere"}
EVERYTHING = NODE_WRITES | NODE_READS | OTHERS_WRITE | OTHERS_READ
CARETAKER_WRITES = CERTIFICATES | {"enrol/aaaabbbbccccdddd/answer"}
CARETAKER_READS = {"enrol/aaaabbbbccccdddd/request", f"node/{NODE}/renewal", f"node/{OTHER}/renewal"}
AGGREGATOR_WRITES = NODE_READS | OTHERS_READ | {f"node/{NODE}/status", f"node/{OTHER}/status"}
OBSERVER_READS = {
    *(f"node/{name}/{leaf}" for name in (NODE, OTHER) for leaf in ("status", "receipt")),
    "model/manifest",
    "task/manifest",
    "aggregator/status",
}


class Client:
    """A paho client that waits for the broker's answer to each thing it does."""

    def __init__(self, mosquitto: Mosquitto, files: IdentityFiles, *, username: str = "", session: str = "") -> None:
        self.answers: queue.Queue[ReasonCode] = queue.Queue()
        self.heard: queue.Queue[str] = queue.Queue()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, session or str(uuid.uuid4()), protocol=paho.MQTTv5)
        if username:
            self.paho.username_pw_set(username)
        self.paho.tls_set_context(client_context(files.ca, files.certificate, files.key))
        self.paho.on_connect = lambda _client, _data, _flags, reason, _properties: self.answers.put(reason)
        self.paho.on_publish = lambda _client, _data, _mid, reason, _properties: self.answers.put(reason)
        self.paho.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self.answers.put(reasons[0])
        self.paho.on_message = lambda _client, _data, message: self.heard.put(message.topic)
        kept = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's is not annotated
        kept.SessionExpiryInterval = 60 if session else 0
        self.paho.connect("localhost", mosquitto.port, clean_start=not session, properties=kept)
        self.paho.loop_start()
        assert not self.answers.get(timeout=TIMEOUT_S).is_failure

    def may_publish(self, topic: str) -> bool:
        self.paho.publish(topic, b"x", qos=1)
        return not self.answers.get(timeout=TIMEOUT_S).is_failure

    def subscribe(self, topic_filter: str) -> None:
        self.paho.subscribe(topic_filter, qos=1)
        assert not self.answers.get(timeout=TIMEOUT_S).is_failure

    def hear_until(self, last_topic: str) -> set[str]:
        heard: set[str] = set()
        while last_topic not in heard:
            heard.add(self.heard.get(timeout=TIMEOUT_S))
        return heard


@contextmanager
def connected(
    mosquitto: Mosquitto, files: IdentityFiles, *, username: str = "", session: str = ""
) -> Iterator[Client]:
    client = Client(mosquitto, files, username=username, session=session)
    try:
        yield client
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


@pytest.fixture(scope="module")
def node(mosquitto: Mosquitto) -> Iterator[Client]:
    with connected(mosquitto, mosquitto.add_identity(NODE)) as client:
        yield client


@pytest.fixture(scope="module")
def aggregator(mosquitto: Mosquitto) -> Iterator[Client]:
    with connected(mosquitto, mosquitto.identity("aggregator")) as client:
        yield client


@pytest.fixture(scope="module")
def observer(mosquitto: Mosquitto) -> Iterator[Client]:
    with connected(mosquitto, mosquitto.identity("observer")) as client:
        yield client


@pytest.mark.parametrize("federation", ["acl-south", "acl-north"])
@pytest.mark.parametrize("topic", sorted(EVERYTHING | STRANGE | CARETAKER_WRITES | CARETAKER_READS))
def test_a_node_writes_its_own_topics_and_no_other(node: Client, federation: str, topic: str) -> None:
    assert node.may_publish(f"fieldfold/{federation}/{topic}") is (topic in NODE_WRITES)


@pytest.mark.parametrize("topic", sorted(EVERYTHING | STRANGE | CARETAKER_WRITES | CARETAKER_READS))
def test_the_caretaker_answers_and_nothing_else(mosquitto: Mosquitto, topic: str) -> None:
    with connected(mosquitto, mosquitto.identity("broker")) as caretaker:
        assert caretaker.may_publish(f"fieldfold/acl/{topic}") is (topic in CARETAKER_WRITES)


@pytest.mark.parametrize("topic", sorted(EVERYTHING | STRANGE | CARETAKER_WRITES | CARETAKER_READS))
def test_the_aggregator_releases_answers_and_clears(aggregator: Client, topic: str) -> None:
    assert aggregator.may_publish(f"fieldfold/acl/{topic}") is (topic in AGGREGATOR_WRITES)


@pytest.mark.parametrize(
    "topic", sorted(EVERYTHING | STRANGE | {f"node/observer/{leaf}" for leaf in ("update", "status", "receipt")})
)
def test_the_observer_writes_nothing(observer: Client, topic: str) -> None:
    assert not observer.may_publish(f"fieldfold/acl/{topic}")


@pytest.mark.parametrize("name", ["aggregator", "observer"])
def test_nobody_passes_for_a_node_of_a_reserved_name(mosquitto: Mosquitto, name: str) -> None:
    with connected(mosquitto, mosquitto.identity(name)) as client:
        assert not client.may_publish(f"fieldfold/acl/node/{name}/update")


@pytest.mark.parametrize(
    "topic", ["other/topic", "$SYS/broker/version", "fieldfold", "$share/x/fieldfold/acl/task/x"]
)
@pytest.mark.parametrize("who", ["node", "aggregator", "observer"])
def test_nobody_writes_outside_the_tree(request: pytest.FixtureRequest, who: str, topic: str) -> None:
    client: Client = request.getfixturevalue(who)

    assert not client.may_publish(topic)


@pytest.mark.parametrize(
    ("who", "may_read"),
    [
        (NODE, NODE_READS | {f"node/{NODE}/certificate"}),
        ("observer", OBSERVER_READS),
        ("aggregator", EVERYTHING | CERTIFICATES),
    ],
)
def test_subscribed_to_everything_each_hears_only_what_is_for_it(
    mosquitto: Mosquitto, aggregator: Client, who: str, may_read: set[str]
) -> None:
    root = f"fieldfold/acl-reading-{who}"
    last = f"{root}/aggregator/status"
    with (
        connected(mosquitto, mosquitto.add_identity(NODE)) as writer,
        connected(mosquitto, mosquitto.add_identity(OTHER)) as other_writer,
        connected(mosquitto, mosquitto.identity("broker")) as caretaker,
        connected(mosquitto, mosquitto.identity(who)) as reader,
    ):
        reader.subscribe("#")
        for topic in NODE_WRITES:
            assert writer.may_publish(f"{root}/{topic}")
        for topic in OTHERS_WRITE:
            assert other_writer.may_publish(f"{root}/{topic}")
        for topic in CERTIFICATES:
            assert caretaker.may_publish(f"{root}/{topic}")
        # The broker keeps the order of its own acknowledgements: whatever is heard at all is heard before the last.
        for topic in [*sorted((NODE_READS | OTHERS_READ) - {"aggregator/status"}), "aggregator/status"]:
            assert aggregator.may_publish(f"{root}/{topic}")

        heard = {topic for topic in reader.hear_until(last) if topic.startswith(root)}

    assert heard == {f"{root}/{topic}" for topic in may_read}


def test_the_caretaker_hears_who_asks_for_a_certificate_and_nothing_else(
    mosquitto: Mosquitto, aggregator: Client
) -> None:
    root = "fieldfold/acl-caretaker"
    with (
        connected(mosquitto, mosquitto.add_identity(NODE)) as writer,
        connected(mosquitto, mosquitto.identity("broker")) as caretaker,
    ):
        caretaker.subscribe("#")
        for topic in NODE_READS:
            assert aggregator.may_publish(f"{root}/{topic}")
        for topic in [*sorted(NODE_WRITES - {f"node/{NODE}/renewal"}), f"node/{NODE}/renewal"]:
            assert writer.may_publish(f"{root}/{topic}")

        heard = caretaker.hear_until(f"{root}/node/{NODE}/renewal")

    assert {topic for topic in heard if topic.startswith(root)} == {f"{root}/node/{NODE}/renewal"}


def test_a_user_name_in_the_packet_does_not_outdo_the_certificate(mosquitto: Mosquitto) -> None:
    with connected(mosquitto, mosquitto.add_identity(NODE), username="aggregator") as client:
        assert not client.may_publish("fieldfold/acl/model/manifest")
        assert client.may_publish(f"fieldfold/acl/node/{NODE}/update")


def test_a_session_taken_over_by_its_client_id_brings_none_of_its_messages(
    mosquitto: Mosquitto, aggregator: Client
) -> None:
    client_id = f"acl-victim-{uuid.uuid4()}"
    with connected(mosquitto, mosquitto.add_identity(OTHER), session=client_id) as victim:
        victim.subscribe(f"fieldfold/acl-takeover/node/{OTHER}/receipt")
    assert aggregator.may_publish(f"fieldfold/acl-takeover/node/{OTHER}/receipt")

    with connected(mosquitto, mosquitto.add_identity(NODE), session=client_id) as thief:
        thief.subscribe("fieldfold/acl-takeover/#")
        assert aggregator.may_publish("fieldfold/acl-takeover/model/manifest")
        heard = thief.hear_until("fieldfold/acl-takeover/model/manifest")

    assert heard == {"fieldfold/acl-takeover/model/manifest"}
