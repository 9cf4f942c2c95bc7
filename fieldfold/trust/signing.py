"""Seals: who said a message, and that it is as it was said. Whom a key belongs to is for credentials.py to say."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fieldfold.errors import ConfigError, SignatureError, WireError
from fieldfold.wire.chunks import SEAL_BYTES, object_digest
from fieldfold.wire.sealed import KEY_ID_BYTES, statement, with_seal, without_seal


class Signer:
    """Signs as one party. Thread-safe."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self._id = key_id(self.public_key)

    def seal(self, topic: str, digest: str) -> bytes:
        """The seal of an object with this SHA-256 (hex), as it is said on `topic`; see `statement`."""
        return self._id + self._key.sign(statement(topic, digest))

    def message(self, topic: str, content: bytes) -> bytes:
        """A readable message (JSON, `content`), sealed, as it is published on `topic`."""
        return with_seal(content, self.seal(topic, object_digest(content)))


class Verifier(msgspec.Struct, frozen=True):
    """Knows what one key has signed.

    Attributes:
        public_key: Ed25519, 32 bytes.
        owner: for people.
    """

    public_key: bytes
    owner: str

    def check(self, topic: str, digest: str, seal: bytes) -> None:
        """Whether the owner said the object with this SHA-256 (hex) on `topic`.

        Raises:
            SignatureError: when not.
        """
        if len(seal) != SEAL_BYTES:
            raise SignatureError(f"{topic}: what came is not signed", "nothing that is not signed is taken")
        known, used = key_id(self.public_key), seal[:KEY_ID_BYTES]
        if used != known:
            raise SignatureError(
                f"{topic}: signed with the key {used.hex()}, but {self.owner}'s is {known.hex()}",
                "was its key or its gateway replaced? then it is sent again; else somebody forges",
            )
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(seal[KEY_ID_BYTES:], statement(topic, digest))
        except (InvalidSignature, ValueError):
            raise SignatureError(
                f"{topic}: it is not what {self.owner} has signed",
                "it was changed, or said elsewhere, on its way: look at who may write to the broker",
            ) from None

    def open(self, topic: str, payload: bytes) -> bytes:
        """The content of a sealed message that came on `topic`.

        Raises:
            SignatureError: when it is none, or the owner did not say it there.
        """
        try:
            content, seal = without_seal(payload)
        except WireError:
            content, seal = payload, b""
        self.check(topic, object_digest(content), seal)
        return content


def key_id(public_key: bytes) -> bytes:
    """By which a seal names its key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def load_signer(path: Path) -> Signer:
    """The key in a file (PKCS #8, PEM); a new one where there is none.

    Raises:
        ConfigError: when it cannot be read or written, is no Ed25519 key, or may be read by others.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not path.exists():
            make_key(path)
        if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path}: the private key may be read by others", f"chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be used: {error.strerror}", "check state_dir and its owner") from None
    except (ValueError, TypeError):
        raise _unfit(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unfit(path)
    return Signer(key)


def _unfit(path: Path) -> ConfigError:
    return ConfigError(f"{path}: is not an Ed25519 key in PEM form", "remove it: another is made at the next start")


def make_key(path: Path) -> None:
    """A new Ed25519 key (PKCS #8, PEM, mode 600), through to the disk, under its name only when it is whole.

    Raises:
        OSError: when it cannot be written.
    """
    content = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
