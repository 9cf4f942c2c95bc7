"""What an attacker brings: a connection made by hand, and certificates that nobody asked for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_config.certificates import KeyPair
from broker_config.folder import IdentityFiles
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.probe import connected
from fieldfold.link.session import LinkConfig
from tests.conftest import Mosquitto

TIMEOUT_S = 5.0
CONNECT = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x3c\x00\x08stranger"


def certificate(
    name: str,
    issuer: KeyPair | None = None,
    *,
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=1),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> KeyPair:
    """Any certificate at all; without an issuer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    return KeyPair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def written(pair: KeyPair, place: Path, name: str = "stranger") -> tuple[Path, Path]:
    """Certificate and key as files."""
    certificate_path, key_path = place / f"{name}.crt", place / f"{name}.key"
    certificate_path.write_bytes(pair.certificate.public_bytes(Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_path, key_path


def context(ca: Path, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """TLS without any of the checks that our own programs make of what they show."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(ca)
    if pair is not None:
        made.load_cert_chain(*pair)
    return made


def gets_in(port: int, tls: ssl.SSLContext | None) -> bool:
    """Whether the broker answers an MQTT CONNECT with CONNACK, success."""
    try:
        with socket.create_connection(("localhost", port), TIMEOUT_S) as plain:
            if tls is None:
                return _is_welcomed(plain)
            with tls.wrap_socket(plain, server_hostname="localhost") as secured:
                return _is_welcomed(secured)
    except OSError:
        return False


def _is_welcomed(connection: socket.socket) -> bool:
    connection.sendall(CONNECT)
    return connection.recv(4) == b"\x20\x02\x00\x00"


@contextmanager
def link_as(mosquitto: Mosquitto, files: IdentityFiles, client_id: str) -> Iterator[MqttLink]:
    """A link that is up, under the given identity."""
    config = LinkConfig(url=mosquitto.url, ca=str(files.ca), certificate=str(files.certificate), key=str(files.key))
    with connected(config, client_id, Path()) as link:
        yield link
