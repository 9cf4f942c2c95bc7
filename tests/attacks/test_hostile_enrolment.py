"""Somebody who found, guessed or kept an invitation, or stands between a gateway and the broker while it enrols."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import load_der_x509_certificate

from broker_config.enrolment import MAX_FAILURES
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from broker_config.invite import Guest, invite
from broker_config.members import read_members
from broker_config.revoke import revoke
from fieldfold.errors import ConfigError, FieldfoldError, LinkError
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.probe import permitted
from fieldfold.link.session import Delivery, Received
from fieldfold.trust.invitation import (
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    digest_of,
    read_code,
    seal,
    shared_secret,
)
from fieldfold.wire.topics import Topics
from node_app.cli import node
from node_app.enroll import enroll
from tests.attacks.strangers import context, gets_in, link_as
from tests.conftest import Mosquitto

TOPICS = Topics("plant")
HOUR = timedelta(hours=1)


def invited(mosquitto: Mosquitto, name: str, lifetime: timedelta = HOUR, *, again: bool = False) -> Invitation:
    return read_code(invite(mosquitto.directory, Guest(name, "plant"), lifetime, again=again))


def files_of(invitation: Invitation, place: Path) -> IdentityFiles:
    """The invitation's own certificate, taken out of the code."""
    files = IdentityFiles(place / "ca.crt", place / "invitation.crt", place / "invitation.key")
    key = ec.derive_private_key(int.from_bytes(invitation.key, "big"), ec.SECP256R1())
    for path, der in ((files.ca, invitation.ca), (files.certificate, invitation.certificate)):
        path.write_bytes(load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def refusal_of(invitation: Invitation, place: Path) -> LinkError:
    with pytest.raises(LinkError) as refusal:
        enroll(invitation, place / "node.toml", data="*.csv")
    assert not (place / "identity").exists()
    assert not (place / "node.toml").exists()
    assert f"fieldfold broker invite {invitation.node}" in refusal.value.hint
    return refusal.value


def settled(mosquitto: Mosquitto, invitation: Invitation, place: Path) -> None:
    """Returns when the broker knows the invitation's rights."""
    for _ in range(50):
        with link_as(mosquitto, files_of(invitation, place), f"settles-{invitation.id}") as link:
            if permitted(link, [TOPICS.enrolment_request(invitation.id)]):
                return
        threading.Event().wait(0.1)
    pytest.fail("the broker never learned of the invitation")


def test_an_invitation_used_twice(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "used-twice")
    enroll(invitation, tmp_path / "first" / "node.toml", data="*.csv")

    assert "used already" in refusal_of(invitation, tmp_path / "second").reason


def test_an_invitation_after_its_time(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "too-late", timedelta(seconds=1))
    threading.Event().wait(1.5)

    assert "expired" in refusal_of(invitation, tmp_path).reason


def test_an_invitation_that_was_withdrawn(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "withdrawn")
    settled(attended_broker, invitation, tmp_path)
    revoke(attended_broker.directory, "withdrawn")
    for _ in range(50):
        files = files_of(invitation, tmp_path)
        if not gets_in(attended_broker.port, context(files.ca, (files.certificate, files.key))):
            break
        threading.Event().wait(0.1)

    assert "revoked" in refusal_of(invitation, tmp_path / "gateway").reason


def test_an_older_invitation_when_there_is_a_newer_for_the_name(attended_broker: Mosquitto, tmp_path: Path) -> None:
    older = invited(attended_broker, "invited-twice")
    newer = invited(attended_broker, "invited-twice")
    enroll(newer, tmp_path / "newer" / "node.toml", data="*.csv")

    assert refusal_of(older, tmp_path / "older").reason


def test_guessing_what_only_the_code_says(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "guessed")
    settled(attended_broker, invitation, tmp_path)
    with link_as(attended_broker, files_of(invitation, tmp_path), "guesses") as link:
        for attempt in range(50):
            guess = EnrolmentRequest(id=invitation.id, csr=f"attempt {attempt}")
            link.publish(TOPICS.enrolment_request(invitation.id), seal(guess, bytes([attempt] * 32))).wait(5)
            threading.Event().wait(0.3)
            if failures(attended_broker, invitation) == MAX_FAILURES:
                break

    assert "void" in refusal_of(invitation, tmp_path / "gateway").reason
    assert failures(attended_broker, invitation) == MAX_FAILURES


def failures(mosquitto: Mosquitto, invitation: Invitation) -> int:
    known = read_members(BrokerFolder(mosquitto.directory)).invitation(invitation.id)
    assert known is not None
    return known.failures


def test_an_invitation_in_the_place_of_a_node(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "only-invited")
    settled(attended_broker, invitation, tmp_path)
    name = f"enrol#{invitation.id}"
    forbidden = [
        TOPICS.update("only-invited"),
        TOPICS.status("only-invited"),
        TOPICS.status(invitation.id),
        TOPICS.aggregator_status,
        TOPICS.live(0),
        TOPICS.enrolment_request("a" * 16),
        TOPICS.enrolment_answer(invitation.id),
        Topics("elsewhere").enrolment_request(invitation.id),
    ]

    with link_as(attended_broker, files_of(invitation, tmp_path), name) as link:
        assert permitted(link, forbidden) == []


def test_an_invitation_hears_nothing_of_the_federation(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invitation = invited(attended_broker, "eavesdropper")
    settled(attended_broker, invitation, tmp_path)
    with (
        link_as(attended_broker, files_of(invitation, tmp_path), "eavesdropper") as spy,
        link_as(attended_broker, attended_broker.identity("aggregator"), "enrol-aggregator") as aggregator,
        link_as(attended_broker, attended_broker.identity("broker"), "enrol-broker") as caretaker,
    ):
        spy.subscribe("#")
        own = TOPICS.enrolment_answer(invitation.id)
        until_heard(spy, lambda: caretaker.publish(own, b"is the subscription there?"))
        assert aggregator.publish(TOPICS.live(0), b"the model").wait(5)
        assert aggregator.publish(TOPICS.task_manifest, b"the task").wait(5)
        assert caretaker.publish(TOPICS.enrolment_answer("a" * 16), b"another's answer").wait(5)
        assert caretaker.publish(own, b"its own").wait(5)

        heard = [received(spy, 5)]
        while heard[-1].payload != b"its own":
            heard.append(received(spy, 5))

    assert {event.topic for event in heard} == {own}


def until_heard(link: MqttLink, publish: Callable[[], Delivery]) -> None:
    """Publishes again and again: what comes before the broker has taken a subscription is lost."""
    for _ in range(100):
        assert publish().wait(5)
        with contextlib.suppress(queue.Empty):
            received(link, 0.2)
            return
    raise AssertionError("nothing was heard")


def received(link: MqttLink, timeout_s: float) -> Received:
    while not isinstance(event := link.events.get(timeout=timeout_s), Received):
        pass
    return event


@pytest.mark.parametrize("who", ["aggregator", "observer", "a node"])
def test_others_can_neither_ask_nor_answer_in_an_enrolment(attended_broker: Mosquitto, who: str) -> None:
    invitation = invited(attended_broker, "not-yours")
    files = attended_broker.add_identity("nosy") if who == "a node" else attended_broker.identity(who)

    with link_as(attended_broker, files, f"nosy-{who}") as link:
        asked = [TOPICS.enrolment_request(invitation.id), TOPICS.enrolment_answer(invitation.id)]
        assert permitted(link, asked) == []


def test_a_broker_that_answers_with_a_certificate_of_its_own(own_mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The broker's own identity may publish answers; without the code's secret they are none."""
    invitation = invited(own_mosquitto, "deceived")
    own_mosquitto.stop()
    own_mosquitto.start()
    forged = own_mosquitto.identity("observer").certificate.read_text()
    done = threading.Event()

    def forge() -> None:
        with link_as(own_mosquitto, own_mosquitto.identity("broker"), "forges") as link:
            link.subscribe(TOPICS.enrolment_request(invitation.id))
            while not done.is_set():
                event = link.events.get(timeout=5)
                if isinstance(event, Received):
                    asked = msgspec.json.decode(event.payload, type=EnrolmentRequest)
                    lie = EnrolmentAnswer(id=asked.id, request=digest_of(asked.csr), certificate=forged)
                    link.publish(TOPICS.enrolment_answer(invitation.id), seal(lie, bytes(32)))
                    done.set()

    thread = threading.Thread(target=forge, daemon=True)
    thread.start()
    with pytest.raises(LinkError, match="nobody"):
        enroll(invitation, tmp_path / "gateway" / "node.toml", data="*.csv", patience_s=4.0)
    thread.join(5)

    assert done.is_set()
    assert not (tmp_path / "gateway" / "identity").exists()


def test_garbage_and_floods_leave_the_next_enrolment_as_it_was(attended_broker: Mosquitto, tmp_path: Path) -> None:
    rogue = invited(attended_broker, "floods")
    settled(attended_broker, rogue, tmp_path)
    with link_as(attended_broker, files_of(rogue, tmp_path), "floods") as link:
        for payload in (b"", b"{", b"\xff" * 40_000, b'{"id":"' + b"a" * 50_000, b"[" * 10_000, b"null"):
            link.publish(TOPICS.enrolment_request(rogue.id), payload)
        stolen = EnrolmentRequest(id=rogue.id, csr="x" * 4000)
        for _ in range(30):
            link.publish(TOPICS.enrolment_request(rogue.id), seal(stolen, shared_secret(rogue.key)))

        made = enroll(invited(attended_broker, "honest"), tmp_path / "honest" / "node.toml", data="*.csv")

    assert made.wrote_configuration


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../press", "press/07", "/etc", "+", "#", "press\x00", "pres\u0455-07", "PRESS", "-press", "press\n"),
        *("", "a" * 64, "aggregator", "observer", "broker", "server", "ca", "bridge-1", "enrol#abc"),
    ],
)
def test_names_that_would_be_paths_filters_or_somebody_else(tmp_path: Path, name: str) -> None:
    root = tmp_path / "broker"
    initialise(root)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    with pytest.raises(ConfigError):
        invite(root, Guest(name, "plant"), HOUR)
    if name not in {"aggregator", "observer"}:
        with pytest.raises(ConfigError):
            revoke(root, name)
    with pytest.raises(ConfigError):
        invite(root, Guest("press-07", name if name not in KNOWN_FEDERATIONS else "a/b"), HOUR)

    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


KNOWN_FEDERATIONS = {"aggregator", "observer", "broker", "server", "ca", "bridge-1"}
"""Names that a federation may bear, though no node may."""


def test_the_books_the_key_and_the_rules_are_nobody_elses_to_read(attended_broker: Mosquitto, tmp_path: Path) -> None:
    made = enroll(invited(attended_broker, "private"), tmp_path / "node.toml", data="*.csv")
    folder = BrokerFolder(attended_broker.directory)

    for path in (made.identity / "private.key", folder.members, folder.acl, folder.ca_key):
        assert not path.stat().st_mode & 0o077, path


def test_nothing_secret_stands_in_the_log_or_on_the_screen(attended_broker: Mosquitto, tmp_path: Path) -> None:
    code = invite(attended_broker.directory, Guest("discreet", "plant"), HOUR)

    shown = CliRunner().invoke(node, ["enroll", "--config", str(tmp_path / "node.toml")], input=code)

    assert shown.exit_code == 0, shown.output
    secret = shared_secret(read_code(code).key).hex()
    for text in (attended_broker.log, shown.output, (tmp_path / "node.toml").read_text()):
        assert code not in text
        assert secret not in text
    assert not list(tmp_path.rglob("invitation.*"))


def test_a_code_pasted_with_its_half_missing_changes_nothing(tmp_path: Path) -> None:
    initialise(tmp_path / "broker")
    code = invite(tmp_path / "broker", Guest("press-07", "plant"), HOUR)

    shown = CliRunner().invoke(node, ["enroll", code[: len(code) // 2], "--config", str(tmp_path / "gw/node.toml")])

    assert isinstance(shown.exception, FieldfoldError)
    assert "copy all of it again" in shown.exception.hint
    assert not (tmp_path / "gw").exists()
