"""X.509 for one broker: an authority, a server certificate, and an identity for everybody who may connect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from broker_config.folder import BrokerFolder
from fieldfold.errors import ConfigError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    from fieldfold.trust.credentials import pin_of
except ImportError:
    raise ConfigError(
        "making certificates needs the package cryptography, which is not installed here",
        "pip install 'fieldfold[aggregator]'",
    ) from None

AUTHORITY_LIFETIME = timedelta(days=3652)
LEAF_LIFETIME = timedelta(days=730)
# Gateways without a battery-backed clock wake up behind; a certificate must not look unborn to them.
CLOCK_SKEW = timedelta(days=1)
ALWAYS_NAMED = ("localhost", "127.0.0.1")

_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
"""Ours are on P-256; an authority that somebody brings may have an RSA key."""


@dataclass(frozen=True)
class KeyPair:
    """A private key and the certificate that belongs to it."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """What may be shown to anybody."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """What nobody else may see; PKCS #8 without a passphrase, since a gateway starts with nobody beside it."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_authority(now: datetime) -> KeyPair:
    """A certificate authority (ECDSA P-256), valid from `now`, that signs leaves and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name keeps apart the authorities of two brokers in a list of trusted ones.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fieldfold broker CA {serial % 16**8:08x}")])
    builder = (
        _builder(name, key.public_key(), now, AUTHORITY_LIFETIME)
        .serial_number(serial)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def issue_identity(authority: KeyPair, name: str, now: datetime) -> KeyPair:
    """A certificate by which `name` (its common name) may connect to the broker, and may not pose as one."""
    key = ec.generate_private_key(ec.SECP256R1())
    return KeyPair(_sign_leaf(authority, _Leaf(key.public_key(), name), now), key)


def issue_invitation(
    authority: KeyPair, name: str, now: datetime, lifetime: timedelta
) -> tuple[x509.Certificate, bytes]:
    """A client's certificate that ends after `lifetime`: long enough to ask for a lasting one, once.

    Returns:
        the certificate, and the private value of its key on P-256: 32 bytes, big-endian.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign_leaf(authority, _Leaf(key.public_key(), name, lifetime=lifetime), now)
    return certificate, key.private_numbers().private_value.to_bytes(32, "big")


def sign_for(
    authority: KeyPair,
    public_key: PublicKey,
    name: str,
    now: datetime,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """The certificate by which whoever holds the private half of `public_key` is known as `name`."""
    return _sign_leaf(authority, _Leaf(public_key, name, lifetime=lifetime), now)


def revocation_list(authority: KeyPair, revoked: Mapping[int, datetime], now: datetime) -> bytes:
    """The CRL in PEM form: serial number -> since when.

    It is good for as long as the authority: a list that ends sooner would shut everybody out on the day it ends.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(authority.certificate.not_valid_after_utc)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue_server(authority: KeyPair, hosts: Sequence[str], now: datetime, key: PrivateKey | None = None) -> KeyPair:
    """The broker's certificate for `hosts` (host names and addresses); a given `key` is kept."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
    return KeyPair(_sign_leaf(authority, _Leaf(key.public_key(), "server", [usage, names]), now), key)


def check_host(host: str) -> str:
    """`host` in the form in which a certificate names it.

    Raises:
        ConfigError: when it is neither a host name nor the address of one machine.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _DNS_NAME.fullmatch(host.lower()):
            return host.lower()
        raise ConfigError(f"{host!r} is not a host name or address", "for example broker.plant or 10.0.0.5") from None
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(f"{host} is no machine's address", "give the one that gateways connect to")
    return str(address)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file.

    Raises:
        ConfigError: when there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "check the folder and its owner") from None
    except ValueError:
        raise ConfigError(f"{path}: is not a certificate in PEM form", "put back the file from a backup") from None


def aggregator_pin(folder: BrokerFolder) -> str:
    """By which nodes know the aggregator: what its certificate's key comes to, also once that is renewed.

    Raises:
        ConfigError: when its certificate cannot be read.
    """
    return pin_of(read_certificate(folder.identity("aggregator").certificate))


def read_key_pair(certificate: Path, key: Path) -> KeyPair:
    """A certificate and its key from PEM files.

    Raises:
        ConfigError: when one cannot be read or they do not belong together.
    """
    try:
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{key}: cannot be read: {error.strerror}", "check the folder and its owner") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{key}: is not a plain private key in PEM form", "put back a backup") from None
    shown = read_certificate(certificate)
    if not isinstance(secret, PrivateKey) or shown.public_key() != secret.public_key():
        raise ConfigError(f"{key}: does not belong to {certificate}", "put back both from one backup")
    return KeyPair(shown, secret)


def read_authority(certificate: Path, key: Path, now: datetime) -> KeyPair:
    """An authority that somebody brings.

    Raises:
        ConfigError: when it is none that could sign for a broker: not its own issuer, no CA, or at its end.
    """
    pair = read_key_pair(certificate, key)
    found = pair.certificate
    try:
        found.verify_directly_issued_by(found)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigError(
            f"{certificate}: is signed by another authority",
            "bring one that signs itself, or have yours issue every certificate: docs/SECURITY.md",
        ) from None
    try:
        is_authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
        may_sign = usage.key_cert_sign and usage.crl_sign
    except x509.ExtensionNotFound:
        is_authority, may_sign = False, False
    if not (is_authority and may_sign):
        raise ConfigError(
            f"{certificate}: may not sign certificates and revocation lists",
            "it needs CA:TRUE, keyCertSign and cRLSign",
        )
    if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
        raise ConfigError(f"{certificate}: has ended or not begun by this machine's clock", "bring one that is good")
    return pair


def server_hosts(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a server certificate is good for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName) + [
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    ]


@dataclass(frozen=True)
class _Leaf:
    """What a certificate says of its holder."""

    public_key: PublicKey
    common_name: str
    extensions: Sequence[x509.ExtensionType] = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),)
    lifetime: timedelta = LEAF_LIFETIME


def _sign_leaf(authority: KeyPair, leaf: _Leaf, now: datetime) -> x509.Certificate:
    remaining = authority.certificate.not_valid_after_utc - now
    if remaining <= timedelta(0):
        raise ConfigError("the certificate authority has expired", "set up the broker anew in another folder")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)])
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(name, leaf.public_key, now, min(leaf.lifetime, remaining))
        .serial_number(x509.random_serial_number())
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(issuer_key, critical=False)
    )
    for extension in leaf.extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, public_key: PublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
