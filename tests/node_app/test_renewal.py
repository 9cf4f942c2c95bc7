"""A certificate that ends soon is followed by the next, over a real broker and under a daemon that works on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.certificates import read_certificate, sign_for
from broker_config.folder import BrokerFolder
from broker_config.invite import Guest, invite
from broker_config.members import changing, read_members, write_members
from fieldfold.link.probe import connected
from fieldfold.trust.invitation import read_code
from fieldfold.trust.renewal import RenewalRequest, is_due
from node_app.config import load
from node_app.daemon import Daemon
from node_app.enroll import enroll
from tests.conftest import Mosquitto
from tests.node_app.running import until

DAY_S = 86_400
NODE = "press-07"


@pytest.fixture
def broker(own_mosquitto: Mosquitto) -> Mosquitto:
    """With its caretaker, and none that other tests have asked."""
    own_mosquitto.stop()
    own_mosquitto.attended = True
    own_mosquitto.start()
    return own_mosquitto


def enrolled(broker: Mosquitto, place: Path, name: str = NODE) -> Path:
    """Where the certificate of a gateway lies that has just joined."""
    (place / "data").mkdir(parents=True)
    (place / "data" / "shift.csv").write_text("force,wear\n1,2\n")
    code = invite(broker.directory, Guest(name), timedelta(hours=1))
    made = enroll(read_code(code), place / "node.toml", data="data/*.csv")
    with (place / "node.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(f'control_socket = "node.sock"\n{text}')
    return made.identity / f"{name}.crt"


def ends_soon(broker: Mosquitto, certificate: Path) -> x509.Certificate:
    """The gateway's certificate as it is an hour before its end, on both sides."""
    with changing(broker.directory) as (folder, authority):
        key = read_certificate(certificate).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        old = sign_for(authority, key, certificate.stem, datetime.now(UTC), timedelta(hours=1))
        for path in (certificate, folder.enrolled_certificate(certificate.stem)):
            path.write_bytes(old.public_bytes(Encoding.PEM))
    return old


def days_left(certificate: Path) -> int:
    return (read_certificate(certificate).not_valid_after_utc - datetime.now(UTC)).days


@contextmanager
def working(place: Path) -> Iterator[Daemon]:
    daemon = Daemon(load(place / "node.toml"), place)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(10)


def test_a_certificate_that_ends_soon_is_renewed_while_the_daemon_works_on(broker: Mosquitto, tmp_path: Path) -> None:
    certificate = enrolled(broker, tmp_path)
    key = certificate.with_suffix(".key").read_bytes()
    old = ends_soon(broker, certificate)

    with working(tmp_path) as daemon:
        status = until(daemon, lambda _: days_left(certificate) > 700)
        assert (status.connected, status.reconnects) == (True, 0)
        assert certificate.with_suffix(".key").read_bytes() == key
        assert sorted(path.name for path in certificate.parent.iterdir()) == [
            "aggregator.pin",
            "ca.crt",
            "press-07.crt",
            "press-07.key",
        ]

        # Who still showed the old one would be shut out from here on; the daemon shows the new one.
        with changing(broker.directory) as (folder, authority):
            revoked = read_members(folder).with_revoked((f"{old.serial_number:x}",), "the former", 0.0)
            write_members(folder, authority, revoked, datetime.now(UTC))
        broker.stop()
        until(daemon, lambda status: not status.connected)
        broker.start()
        assert until(daemon, lambda status: status.connected).reconnects == 1


def test_revoke_knows_the_certificates_of_before_the_renewal(broker: Mosquitto, tmp_path: Path) -> None:
    certificate = enrolled(broker, tmp_path)
    old = ends_soon(broker, certificate)
    with working(tmp_path) as daemon:
        until(daemon, lambda _: days_left(certificate) > 700)

    assert read_members(BrokerFolder(broker.directory)).earlier == {f"{old.serial_number:x}": NODE}


def test_one_that_is_good_for_long_is_left_alone(broker: Mosquitto, tmp_path: Path) -> None:
    certificate = enrolled(broker, tmp_path)
    before = certificate.read_bytes()
    config = load(tmp_path / "node.toml").broker

    with connected(config, "asks-early", tmp_path) as link, working(tmp_path) as daemon:
        until(daemon, lambda status: status.connected)
        request = msgspec.json.encode(RenewalRequest(expires_s=0))
        assert link.publish(f"fieldfold/plant/node/{NODE}/renewal", request).wait(5)
        threading.Event().wait(1.0)

    assert certificate.read_bytes() == before
    assert read_members(BrokerFolder(broker.directory)).earlier == {}


def test_what_lies_beside_the_broker_is_renewed_by_the_caretaker(broker: Mosquitto) -> None:
    broker.stop()
    files = BrokerFolder(broker.directory).identity("aggregator")
    with changing(broker.directory) as (_, authority):
        key = read_certificate(files.certificate).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        soon = sign_for(authority, key, "aggregator", datetime.now(UTC), timedelta(hours=1))
        files.certificate.write_bytes(soon.public_bytes(Encoding.PEM))

    broker.start()

    for _ in range(100):
        if days_left(files.certificate) > 700:
            break
        threading.Event().wait(0.1)
    assert days_left(files.certificate) > 700


@pytest.mark.parametrize(
    ("life_days", "left_days", "due"),
    [(731, 61, False), (731, 59, True), (90, 31, False), (90, 29, True), (1, 0.5, False), (1, 0.3, True)],
)
def test_it_is_due_60_days_before_its_end_or_a_third_of_its_life(
    life_days: float, left_days: float, *, due: bool
) -> None:
    assert is_due(0, life_days * DAY_S, (life_days - left_days) * DAY_S) is due
