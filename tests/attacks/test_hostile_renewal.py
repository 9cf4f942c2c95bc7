"""Somebody who would have a certificate by asking for its renewal, or hands one to a node that asked."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from broker_config.certificates import KeyPair, issue_identity, new_authority, read_certificate, sign_for
from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from broker_config.members import changing, read_members
from broker_config.renew import certificate_for
from broker_config.revoke import revoke
from fieldfold.errors import FieldfoldError
from fieldfold.link.endpoint import TlsFiles
from fieldfold.link.probe import permitted
from fieldfold.link.session import Received
from fieldfold.trust.renewal import RenewalAnswer, RenewalRequest
from fieldfold.wire.topics import Topics
from node_app.renewal import Renewal
from tests.attacks.strangers import link_as
from tests.conftest import Mosquitto

NODE = "press-07"
TOPICS = Topics("plant")


class Asking:
    """A node whose certificate ends in an hour."""

    def __init__(self, place: Path) -> None:
        initialise(place / "broker", nodes=[NODE])
        self.folder = BrokerFolder(place / "broker")
        self.files = self.folder.identity(NODE)
        with changing(self.folder.root) as (_, authority):
            self.authority = authority
        self.own = issue_identity(self.authority, NODE, datetime.now(UTC))
        soon = self.signed(self.authority, self.own, timedelta(hours=1))
        self.files.certificate.write_text(soon)
        self.files.key.write_bytes(self.own.key_pem)
        self.asked: list[bytes] = []
        tls = TlsFiles(self.files.ca, self.files.certificate, self.files.key)
        self.renewal = Renewal(tls, NODE, self.asked.append)
        self.renewal.tick(0.0)

    def signed(
        self, authority: KeyPair, pair: KeyPair, lifetime: timedelta = timedelta(days=700), name: str = NODE
    ) -> str:
        made = sign_for(authority, pair.key.public_key(), name, datetime.now(UTC), lifetime)
        return made.public_bytes(Encoding.PEM).decode()

    def is_given(self, certificate: str) -> None:
        self.renewal.take(msgspec.json.encode(RenewalAnswer(certificate=certificate)))


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


def test_the_honest_answer_is_taken(asking: Asking) -> None:
    assert msgspec.json.decode(asking.asked[0], type=RenewalRequest).expires_s > 0
    asking.is_given(asking.signed(asking.authority, asking.own))

    assert (read_certificate(asking.files.certificate).not_valid_after_utc - datetime.now(UTC)).days > 690


def hostile(asking: Asking, what: str) -> str:
    if what == "a certificate for another key":
        return asking.signed(asking.authority, issue_identity(asking.authority, NODE, datetime.now(UTC)))
    if what == "a certificate of another authority":
        return asking.signed(new_authority(datetime.now(UTC)), asking.own)
    if what == "a certificate for another name":
        return asking.signed(asking.authority, asking.own, name="aggregator")
    if what == "one that ends no later":
        return asking.signed(asking.authority, asking.own, timedelta(minutes=5))
    if what == "a server's certificate":
        return asking.folder.server_certificate.read_text()
    return "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "what",
    [
        "a certificate for another key",
        "a certificate of another authority",
        "a certificate for another name",
        "one that ends no later",
        "a server's certificate",
        "no certificate",
    ],
)
def test_a_broker_that_hands_out_another_certificate(asking: Asking, what: str) -> None:
    before = asking.files.certificate.read_bytes()

    if what == "one that ends no later":
        asking.is_given(hostile(asking, what))
    else:
        with pytest.raises(FieldfoldError):
            asking.is_given(hostile(asking, what))

    assert asking.files.certificate.read_bytes() == before
    assert not list(asking.files.certificate.parent.glob(".*"))


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff" * 40_000, b'{"format":2,"certificate":""}', b"[" * 10_000])
def test_garbage_in_the_place_of_a_certificate(asking: Asking, payload: bytes) -> None:
    before = asking.files.certificate.read_bytes()

    with pytest.raises(FieldfoldError):
        asking.renewal.take(payload)

    assert asking.files.certificate.read_bytes() == before


def test_asking_in_another_nodes_name(attended_broker: Mosquitto) -> None:
    files = attended_broker.add_identity("renews-others")

    with link_as(attended_broker, files, "renews-others") as link:
        assert permitted(link, [TOPICS.renewal("press-07"), TOPICS.certificate("renews-others")]) == []


def test_asking_again_and_again_signs_nothing_and_answers_with_what_is_there(attended_broker: Mosquitto) -> None:
    files = attended_broker.add_identity("asks-often")
    with link_as(attended_broker, files, "asks-often") as link:
        link.subscribe(TOPICS.certificate("asks-often"))
        for payload in (b"", b"{", b"null", b"\xff" * 40_000):
            link.publish(TOPICS.renewal("asks-often"), payload).wait(5)
            threading.Event().wait(0.6)
        for _ in range(20):
            link.publish(TOPICS.renewal("asks-often"), msgspec.json.encode(RenewalRequest(expires_s=1))).wait(5)
        while not isinstance(event := link.events.get(timeout=5), Received):
            pass

    told = msgspec.json.decode(event.payload, type=RenewalAnswer).certificate
    assert load_pem_x509_certificate(told.encode()) == read_certificate(files.certificate)
    assert "asks-often" not in read_members(BrokerFolder(attended_broker.directory)).earlier.values()


def test_renewing_what_was_revoked(asking: Asking) -> None:
    revoke(asking.folder.root, NODE)

    with changing(asking.folder.root) as (folder, authority):
        assert certificate_for(folder, authority, NODE, datetime.now(UTC)) is None
        assert certificate_for(folder, authority, "nobody", datetime.now(UTC)) is None
