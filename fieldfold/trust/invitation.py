"""What an invitation holds, how it is written as a code, and how the two ends of an enrolment know each other.

A code lets one gateway onto the broker once, over mutual TLS like everybody else: it holds the broker's address, the
authority to trust, and a short-lived client certificate with its key. From that key both ends derive a secret, by
which each authenticates what it says; so nobody between them, the broker included, can put another key or another
certificate in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from fieldfold.errors import ConfigError, WireError
from fieldfold.wire.messages import HexDigest, Name, Text

CODE_PREFIX: Final = "fieldfold1-"
MAX_CODE_CHARACTERS = 8192
MAX_MESSAGE_BYTES = 16 * 1024
USER_PREFIX: Final = "enrol#"
"""Of the common names of invitations. No node is called so, and Mosquitto gives a name with # no pattern's rights."""

_CHECK_BYTES = 4
_MAX_INFLATED_BYTES = 16 * 1024

InvitationId = Annotated[str, msgspec.Meta(pattern=r"^[a-z2-7]{16}\Z")]
Pem = Annotated[str, msgspec.Meta(max_length=4096)]


class Invitation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a code says.

    Attributes:
        id: names the invitation, in topics and in the certificate.
        node: the name that the gateway will bear.
        federation: the one it joins.
        url: of the broker, as gateways reach it.
        expires_s: seconds since the epoch, by the broker's clock.
        ca: the authority's certificate (DER).
        certificate: the invitation's own client certificate (DER).
        key: private value of its key on P-256, 32 bytes, big-endian.
        aggregator: SHA-256 of the public key (SubjectPublicKeyInfo) in the certificate of the aggregator to believe.
    """

    format: Literal[1] = 1
    id: InvitationId
    node: Name
    federation: Name
    url: Annotated[str, msgspec.Meta(pattern=r"^mqtts://[^/@\s]{1,300}\Z")]
    expires_s: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    ca: Annotated[bytes, msgspec.Meta(max_length=4096)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=4096)]
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    aggregator: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's request for a certificate; `csr` is PKCS #10 in PEM form, `mac` HMAC-SHA-256 in hex."""

    format: Literal[1] = 1
    id: InvitationId
    csr: Pem
    mac: str = ""


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request: a certificate, or a reason and what to do.

    Attributes:
        request: SHA-256 of the request's csr, so that an answer to another request is none to this.
    """

    format: Literal[1] = 1
    id: InvitationId
    request: HexDigest
    certificate: Pem = ""
    reason: Text = ""
    hint: Text = ""
    mac: str = ""


Message = TypeVar("Message", EnrolmentRequest, EnrolmentAnswer)
Kind = TypeVar("Kind", bound=msgspec.Struct)


def write_code(invitation: Invitation) -> str:
    """The invitation as one word of letters, digits, - and _."""
    packed = zlib.compress(msgspec.msgpack.encode(invitation), 9)
    check = hashlib.sha256(packed).digest()[:_CHECK_BYTES]
    return CODE_PREFIX + base64.urlsafe_b64encode(check + packed).decode().rstrip("=")


def read_code(code: str) -> Invitation:
    """The invitation in a code; line breaks and blanks that a terminal or a mail put into it do not matter.

    Raises:
        ConfigError: when it is not a code, or not all of one.
    """
    word = "".join(code[: 2 * MAX_CODE_CHARACTERS].split())
    if not word.startswith(CODE_PREFIX) or len(word) > MAX_CODE_CHARACTERS:
        raise ConfigError("that is not an invitation's code", f"it begins with {CODE_PREFIX}; copy the whole of it")
    body = word.removeprefix(CODE_PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        check, packed = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        inflated = zlib.decompressobj().decompress(packed, _MAX_INFLATED_BYTES)
        invitation = msgspec.msgpack.decode(inflated, type=Invitation)
    except (binascii.Error, ValueError, zlib.error, msgspec.DecodeError):
        raise _damaged() from None
    if hashlib.sha256(packed).digest()[:_CHECK_BYTES] != check:
        raise _damaged()
    return invitation


def shared_secret(key: bytes) -> bytes:
    """The secret of both ends, from the invitation's private key: HMAC-SHA-256 with a label of its own."""
    return hmac.digest(key, b"fieldfold enrolment 1", "sha256")


def seal(message: Message, secret: bytes) -> bytes:
    """The message as JSON, with its authentication code."""
    return msgspec.json.encode(msgspec.structs.replace(message, mac=_mac(message, secret)))


def parse(payload: bytes, kind: type[Kind]) -> Kind:
    """A message whose sender is not known yet, of an enrolment or a renewal.

    Raises:
        WireError: when it is none.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise WireError(f"{len(payload)} bytes are too many for an enrolment")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WireError(f"that is no {kind.__name__}") from None


def is_authentic(message: EnrolmentRequest | EnrolmentAnswer, secret: bytes) -> bool:
    """Whether the other holder of `secret` said exactly this, in this direction."""
    return hmac.compare_digest(message.mac.encode(), _mac(message, secret).encode())


def digest_of(csr: str) -> str:
    """SHA-256, in hex, by which an answer names the request."""
    return hashlib.sha256(csr.encode()).hexdigest()


def _mac(message: EnrolmentRequest | EnrolmentAnswer, secret: bytes) -> str:
    said = type(message).__name__.encode() + b"\0" + msgspec.json.encode(msgspec.structs.replace(message, mac=""))
    return hmac.new(secret, said, "sha256").hexdigest()


def _damaged() -> ConfigError:
    return ConfigError("the invitation's code is damaged or not whole", "copy all of it again")
