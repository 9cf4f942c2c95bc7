"""An authority that the plant brings, and keys that were made elsewhere: over a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.certificates import PrivateKey, read_certificate
from broker_config.cli import broker
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from broker_config.invite import Guest, invite
from broker_config.revoke import revoke
from fieldfold.errors import ConfigError, LinkError
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.probe import connected, permitted
from fieldfold.link.session import LinkConfig
from fieldfold.trust.invitation import read_code
from fieldfold.wire.topics import Topics
from node_app.enroll import enroll
from tests.conftest import Mosquitto, free_port

DAY = timedelta(days=1)
TOPICS = Topics("plant")


class Plant:
    """An authority of a plant, that issues what it is asked for."""

    def __init__(self, place: Path, name: str, key: PrivateKey | None = None, issuer: Plant | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer
        self.certificate = self.issue(name, self.key, is_authority=True)
        self.files = place / f"{name}.crt", place / f"{name}.key"
        write(place, name, self.certificate, self.key)

    def issue(self, name: str, key: PrivateKey, *, is_authority: bool = False, host: str = "") -> x509.Certificate:
        by, now = (self.issuer or self) if is_authority else self, datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = [False] * 9
        usage[0 if not is_authority else 5] = True
        usage[6] = is_authority
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by is self and is_authority else by.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 300 * DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(*usage), critical=True)
        )
        if not is_authority:
            purpose = ExtendedKeyUsageOID.SERVER_AUTH if host else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if host:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(by.key, hashes.SHA256())

    def revoked(self, *serials: int) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - DAY)
            .next_update(now + DAY)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write(place: Path, name: str, certificate: x509.Certificate, key: PrivateKey, *chain: x509.Certificate) -> None:
    place.mkdir(parents=True, exist_ok=True)
    pems = [each.public_bytes(Encoding.PEM) for each in (certificate, *chain)]
    (place / f"{name}.crt").write_bytes(b"".join(pems))
    (place / f"{name}.key").touch(mode=0o600)
    (place / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextmanager
def running(root: Path, port: int, *, attended: bool) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(root, port, attended)
    mosquitto.start()
    try:
        yield mosquitto
    finally:
        mosquitto.stop()


def config_of(mosquitto: Mosquitto, files: IdentityFiles) -> LinkConfig:
    return LinkConfig(url=mosquitto.url, ca=str(files.ca), certificate=str(files.certificate), key=str(files.key))


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_an_authority_that_is_brought_invites_enrols_and_revokes_as_ours_does(tmp_path: Path, kind: str) -> None:
    key: PrivateKey = ec.generate_private_key(ec.SECP384R1() if kind == "P-384" else ec.SECP256R1())
    if kind == "RSA":
        key = rsa.generate_private_key(65537, 3072)
    plant = Plant(tmp_path, "plant-ca", key)
    root, port = tmp_path / "broker", free_port()
    certificate, key_path = (str(path) for path in plant.files)

    done = CliRunner().invoke(
        broker, ["init", str(root), "--port", str(port), "--ca-cert", certificate, "--ca-key", key_path]
    )

    assert done.exit_code == 0, done.output
    assert read_certificate(BrokerFolder(root).ca_certificate) == plant.certificate
    with running(root, port, attended=True) as mosquitto:
        code = invite(root, Guest("press-07"), DAY)
        made = enroll(read_code(code), tmp_path / "gateway" / "node.toml", data="*.csv").identity
        files = IdentityFiles(made / "ca.crt", made / "press-07.crt", made / "press-07.key")
        with connected(config_of(mosquitto, files), "press-07", tmp_path) as link:
            assert permitted(link, [TOPICS.status("press-07"), TOPICS.status("other")]) == [TOPICS.status("press-07")]
            revoke(root, "press-07")
            assert gone(link)


def gone(link: MqttLink) -> bool:
    deadline = time.monotonic() + 5
    while link.is_up and time.monotonic() < deadline:
        time.sleep(0.05)
    return not link.is_up


def test_an_authority_that_cannot_sign_for_a_broker_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    root = Plant(tmp_path, "root")
    below = Plant(tmp_path, "below", issuer=root)
    key = ec.generate_private_key(ec.SECP256R1())
    write(tmp_path, "leaf", root.issue("leaf", key), key)
    cases = {
        "signed by another authority": below.files,
        "signed by another": (tmp_path / "leaf.crt", tmp_path / "leaf.key"),
        "does not belong to": (root.files[0], below.files[1]),
        "cannot be read": (tmp_path / "none.crt", root.files[1]),
    }

    for words, files in cases.items():
        with pytest.raises(ConfigError, match=words):
            initialise(tmp_path / "broker", authority=files)
        assert not (tmp_path / "broker" / "ca").exists()


def test_a_folder_keeps_the_authority_that_it_has(tmp_path: Path) -> None:
    plant = Plant(tmp_path, "plant-ca")
    initialise(tmp_path / "broker", authority=plant.files)
    initialise(tmp_path / "broker", authority=plant.files, nodes=["press-07"])

    with pytest.raises(ConfigError, match="holds another authority"):
        initialise(tmp_path / "broker", authority=Plant(tmp_path, "other").files)


def test_certificates_that_an_authority_elsewhere_issues_through_an_intermediate(tmp_path: Path) -> None:
    """No key of theirs lies beside the broker: four lines of mosquitto.conf, and files in the configurations."""
    root = Plant(tmp_path / "pki", "root")
    office = Plant(tmp_path / "pki", "office", issuer=root)
    (tmp_path / "pki" / "chain.crt").write_bytes(root.files[0].read_bytes() + office.files[0].read_bytes())
    (tmp_path / "pki" / "office.crl").write_bytes(office.revoked())
    names = ("press-07", "kiln-01", "server")
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        host = "localhost" if name == "server" else ""
        write(tmp_path / name, name, office.issue(name, key, host=host), key, office.certificate)
    port = free_port()
    initialise(tmp_path / "broker", port=port)
    conf = BrokerFolder(tmp_path / "broker").configuration
    brought = {
        "cafile": tmp_path / "pki" / "chain.crt",
        "crlfile": tmp_path / "pki" / "office.crl",
        "certfile": tmp_path / "server" / "server.crt",
        "keyfile": tmp_path / "server" / "server.key",
    }
    lines = [line.split(" ", 1) for line in conf.read_text().splitlines()]
    conf.write_text("\n".join(" ".join([key, str(brought.get(key, *rest)) if rest else ""]) for key, *rest in lines))

    with running(tmp_path / "broker", port, attended=False) as mosquitto:
        files = {
            name: IdentityFiles(root.files[0], tmp_path / name / f"{name}.crt", tmp_path / name / f"{name}.key")
            for name in names
        }
        config = config_of(mosquitto, files["press-07"])
        with connected(config, "press-07", tmp_path) as link:
            assert permitted(link, [TOPICS.update("press-07"), TOPICS.update("kiln-01")]) == [
                TOPICS.update("press-07")
            ]
        serial = read_certificate(files["press-07"].certificate).serial_number
        (tmp_path / "pki" / "office.crl").write_bytes(office.revoked(serial))
        os.kill(mosquitto.pid, signal.SIGHUP)
        time.sleep(0.5)
        with pytest.raises(LinkError, match="revoked"), connected(config, "press-07", tmp_path):
            pass
        with connected(config_of(mosquitto, files["kiln-01"]), "kiln-01", tmp_path) as link:
            assert link.is_up


def test_a_key_that_was_made_elsewhere_is_signed_from_its_request(tmp_path: Path) -> None:
    """As a key in a TPM or on a smart card is, of which openssl makes the request."""
    port = free_port()
    initialise(tmp_path / "broker", port=port)
    openssl = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    key, request = tmp_path / "press-07.key", tmp_path / "press-07.csr"
    subprocess.run(
        [*openssl, "-subj", "/CN=press-07", "-keyout", str(key), "-out", str(request)],
        check=True,
        capture_output=True,
    )
    asked = ["sign", "press-07", str(request), "--folder", str(tmp_path / "broker")]

    done = CliRunner().invoke(broker, asked)

    assert done.exit_code == 0, done.output
    (tmp_path / "press-07.crt").write_text(done.output)
    files = IdentityFiles(BrokerFolder(tmp_path / "broker").ca_certificate, tmp_path / "press-07.crt", key)
    with (
        running(tmp_path / "broker", port, attended=True) as mosquitto,
        connected(config_of(mosquitto, files), "press-07", tmp_path) as link,
    ):
        assert permitted(link, [TOPICS.status("press-07")])
        revoke(tmp_path / "broker", "press-07")
        assert gone(link)
    for wrong in (["sign", "kiln-01", *asked[2:]], ["sign", "observer", *asked[2:]]):
        assert isinstance(CliRunner().invoke(broker, wrong).exception, ConfigError)
