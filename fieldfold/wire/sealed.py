"""What is signed, byte by byte: messages, the objects that chunks make up, and the keys that sign them. Pure."""

from __future__ import annotations

import base64
from typing import Annotated, Final, Literal

import msgspec

from fieldfold.errors import WireError
from fieldfold.wire.chunks import SEAL_BYTES
from fieldfold.wire.messages import FORMAT, Binary, Counter

KEY_ID_BYTES: Final = 8
"""A seal says which key it is of, by the first bytes of its SHA-256; then comes its signature of a `statement`."""
_BEFORE, _AFTER = b',"seal":"', b'"}'
SEALED_BYTES: Final = len(_BEFORE) + 4 * SEAL_BYTES // 3 + len(_AFTER)
"""By which a message grows when it is sealed."""
MAX_CERTIFICATES: Final = 4
MAX_CREDENTIAL_BYTES: Final = 16 * 1024

PublicBytes = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Certificates = Annotated[
    tuple[Annotated[bytes, msgspec.Meta(max_length=4096)], ...],
    msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATES),
]


class Credential(Binary, frozen=True, kw_only=True):
    """The key that a party signs with, endorsed by the key of its certificate.

    Attributes:
        public_key: Ed25519.
        issued: milliseconds since 1970, by the party's clock, when it was endorsed.
        certificates: DER; the party's own, then those between it and the authority.
        signature: of the `endorsement`, by the key of the first certificate.
    """

    format: Literal[1] = FORMAT
    public_key: PublicBytes
    issued: Counter
    certificates: Certificates
    signature: Annotated[bytes, msgspec.Meta(max_length=1024)]


def with_seal(content: bytes, seal: bytes) -> bytes:
    """A JSON object with the seal as its last key: what was signed is the object without it, byte for byte."""
    return content[:-1] + _BEFORE + base64.b64encode(seal) + _AFTER


def without_seal(message: bytes) -> tuple[bytes, bytes]:
    """What was signed, and the seal; whether that is good is not looked at.

    Raises:
        WireError: when there is none.
    """
    tail = message[-SEALED_BYTES:]
    if not (tail.startswith(_BEFORE) and tail.endswith(_AFTER)):
        raise WireError("the last key of the message is no seal")
    try:
        seal = base64.b64decode(tail[len(_BEFORE) : -len(_AFTER)], validate=True)
    except ValueError:
        raise WireError("the seal is no base64") from None
    return message[:-SEALED_BYTES] + b"}", seal


def statement(topic: str, digest: str) -> bytes:
    """What a seal signs.

    Args:
        topic: what is said, by whom and to whom: in full, or of a delta `fieldfold/F/model/delta`.
        digest: SHA-256 in hex of the content, or of the object that the chunks make up.
    """
    return b"fieldfold message 1\0" + topic.encode() + b"\0" + bytes.fromhex(digest)


def endorsement(topic: str, public_key: bytes, issued: int) -> bytes:
    """What the key of a certificate signs, so that `public_key` counts as the party's.

    Args:
        topic: where the credential stands; it names federation and party.
        public_key: Ed25519, 32 bytes.
        issued: as in the credential.
    """
    return b"fieldfold key 1\0" + topic.encode() + b"\0" + public_key + issued.to_bytes(8, "big")
