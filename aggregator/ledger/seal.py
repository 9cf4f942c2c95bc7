"""The aggregator's key for what it witnesses: Ed25519, in a file beside the ledger, made at the first start."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from aggregator.ledger.chain import Verify
from fieldfold.errors import StoreError
from fieldfold.trust.signing import make_key

KEY_FILE, PUBLIC_FILES = "seal.key", "seal-*.pub"
"""The public half of each key that ever was, so that a lost key costs no proof of what it signed."""
_REMEDY = "put back the one from a backup, or move it away: another is made, and what it signed stays provable"
_GIVE = "give the file seal-*.pub from beside the ledger with --key"


class Seal:
    """The private key in `folder`; made, with its public half beside it, when there is none.

    Raises:
        StoreError: others may read it, it is no such key, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / KEY_FILE
        try:
            if not path.exists():
                make_key(path)
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StoreError(
                    f"{path}: the private key may be read by others (mode {mode:04o})", f"chmod 600 {path}"
                )
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise StoreError(f"{path}: is not an Ed25519 key", _REMEDY)
            self.fingerprint = fingerprint_of(key.public_key())
            public = folder / PUBLIC_FILES.replace("*", self.fingerprint[:16])
            if not public.exists():
                public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        except OSError as error:
            raise StoreError(f"{path}: cannot be used: {error.strerror}", "check the folder and its owner") from None
        except (ValueError, TypeError):
            raise StoreError(f"{path}: is not a plain private key in PEM form", _REMEDY) from None
        self._key = key

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)


def fingerprint_of(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of the key, in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def verifier(paths: Iterable[Path]) -> Verify:
    """Believes the public keys in these files.

    Raises:
        StoreError: when one is none.
    """
    known = {fingerprint_of(key): key for key in map(_public, paths)}

    def verify(fingerprint: str, signature: bytes, message: bytes) -> bool:
        try:
            known[fingerprint].verify(signature, message)
        except (KeyError, InvalidSignature):
            return False
        return True

    return verify


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}", _GIVE) from None
    except ValueError:
        raise StoreError(f"{path}: is not a public key in PEM form", _GIVE) from None
    if not isinstance(key, Ed25519PublicKey):
        raise StoreError(f"{path}: is not an Ed25519 key", _GIVE)
    return key
