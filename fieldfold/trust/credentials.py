"""Whose key it is that signs: a party's Ed25519 key, endorsed by the key of its certificate.

So nobody has to be told of a new party: what it shows is enough, and any authority will do. The aggregator's
certificate must besides bear a key that the node has pinned.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from fieldfold.errors import ConfigError, SignatureError, WireError
from fieldfold.trust.signing import key_id
from fieldfold.wire.messages import pack, unpack
from fieldfold.wire.sealed import MAX_CERTIFICATES, MAX_CREDENTIAL_BYTES, Credential, endorsement

PINS_FILE = "aggregator.pin"
"""Beside the authority's certificate on a gateway: one line, 64 hex digits, for each key the aggregator may have."""
CLOCK_SKEW = dt.timedelta(days=1)

_PIN = re.compile(r"[0-9a-f]{64}")
_Key = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Standing(msgspec.Struct, frozen=True):
    """What a credential says, once it was found good.

    Attributes:
        public_key: that the party signs with.
        certified_s, expires_s: begin and end of the certificate, seconds since 1970.
        issued: milliseconds since 1970.
        pin: of the certificate's key.
    """

    public_key: bytes
    certified_s: int
    issued: int
    expires_s: int
    pin: str

    def newest(self, former: Standing | None) -> Standing:
        """This one or, where that is newer and has the same key, a former one of the same party.

        What counts first is the authority's clock, which certified it: a gateway's own may be wrong.

        Raises:
            SignatureError: when the former one has another key and is newer: what was replaced never comes back.
        """
        if former is None or (self.certified_s, self.issued) > (former.certified_s, former.issued):
            return self
        if self.public_key == former.public_key:
            return former
        raise SignatureError(
            f"the key {key_id(self.public_key).hex()} was replaced by another since",
            "is an old gateway, or an old copy of one, still running? else somebody says old things again",
        )


def endorse(certificate: Path, key: Path, topic: str, public_key: bytes) -> bytes:
    """The credential for a key, to be published on `topic`.

    Args:
        certificate: the party's, PEM; behind it may stand those that lead to the authority.
        key: of that certificate, PEM.
        topic: the party's key topic.
        public_key: Ed25519, that it signs with.

    Raises:
        ConfigError: when the files are not fit.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())[:MAX_CERTIFICATES]
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}", "check path and owner") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{certificate} and {key}: are not a certificate and a key in PEM form") from None
    return credential_of(chain, secret, topic, public_key)


def credential_of(chain: Sequence[x509.Certificate], secret: object, topic: str, public_key: bytes) -> bytes:
    """The same from certificates and key themselves.

    Raises:
        ConfigError: when the key is of another kind than ECDSA, RSA and Ed25519.
    """
    issued = int(time.time() * 1000)
    said = endorsement(topic, public_key, issued)
    if isinstance(secret, ec.EllipticCurvePrivateKey):
        signature = secret.sign(said, ec.ECDSA(hashes.SHA256()))
    elif isinstance(secret, rsa.RSAPrivateKey):
        signature = secret.sign(said, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(secret, ed25519.Ed25519PrivateKey):
        signature = secret.sign(said)
    else:
        raise ConfigError("the certificate's key is of a kind that cannot sign here", "ECDSA, RSA or Ed25519")
    ders = tuple(each.public_bytes(serialization.Encoding.DER) for each in chain)
    return pack(Credential(public_key=public_key, issued=issued, certificates=ders, signature=signature))


def examine(
    payload: bytes,
    topic: str,
    name: str,
    authorities: Sequence[x509.Certificate],
    now: dt.datetime | None = None,
) -> Standing:
    """What a credential says that came on `topic`, and must be that of `name`.

    Args:
        payload: as it came.
        topic: where.
        name: whose it is.
        authorities: who is trusted to certify it.
        now: when the certificate must be valid; None on a gateway, whose clock is not believed.

    Raises:
        SignatureError: when it is none, or not certified by one of the authorities for this name, at this time.
    """
    if len(payload) > MAX_CREDENTIAL_BYTES:
        raise SignatureError(f"{topic}: a credential of {len(payload)} bytes")
    try:
        credential = unpack(Credential, payload)
        chain = [x509.load_der_x509_certificate(each) for each in credential.certificates]
        _require_issued(chain, authorities)
        holder = chain[0].public_key()
        said = endorsement(topic, credential.public_key, credential.issued)
        _verify(holder, credential.signature, said)
        names = [str(each.value) for each in chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except WireError as error:
        raise SignatureError(f"{topic}: {error.reason}") from None
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise SignatureError(
            f"{topic}: the key is not certified by the authority that is trusted here",
            "are both sides of one broker's folder? else somebody forges",
        ) from None
    if names != [name]:
        raise SignatureError(f"{topic}: the certificate is for {', '.join(names)[:80]!r}, not for {name}")
    begins, ends = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    if now is not None and not begins - CLOCK_SKEW <= now <= ends:
        raise SignatureError(
            f"{topic}: the certificate is good from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}",
            "renew it, or set this machine's clock",
        )
    return Standing(
        credential.public_key, int(begins.timestamp()), credential.issued, int(ends.timestamp()), pin_of(chain[0])
    )


def pin_of(certificate: x509.Certificate) -> str:
    """SHA-256 in hex of a certificate's public key, as SubjectPublicKeyInfo; a renewed certificate keeps it."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def read_authorities(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file.

    Raises:
        ConfigError: when there are none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "copy it from beside the broker") from None
    except ValueError:
        raise ConfigError(f"{path}: is not a certificate in PEM form", "copy it from beside the broker") from None


def read_pins(authority: Path) -> frozenset[str]:
    """The keys that the aggregator may have; the file lies beside the authority's certificate.

    Raises:
        ConfigError: when there is none.
    """
    path = authority.with_name(PINS_FILE)
    try:
        pins = frozenset(path.read_text(encoding="ascii").split())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}",
            "it says which aggregator is believed: copy it from identities/NAME beside the broker",
        ) from None
    except ValueError:
        pins = frozenset()
    if not pins or not all(_PIN.fullmatch(pin) for pin in pins):
        raise ConfigError(f"{path}: is not a list of 64 hex digits each", "copy it from beside the broker again")
    return pins


def _require_issued(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> None:
    for issued, issuer in itertools.pairwise(chain):
        issued.verify_directly_issued_by(issuer)
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError("a certificate that may not sign others")
    for authority in authorities:
        if authority.subject == chain[-1].issuer:
            try:
                chain[-1].verify_directly_issued_by(authority)
            except (InvalidSignature, ValueError, TypeError):
                continue
            return
    raise ValueError("of no authority")


def _verify(key: object, signature: bytes, said: bytes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, said, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, said, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, said)
    else:
        raise TypeError("a key of another kind")
