"""The chain of what people asked for: each row bears a digest of itself and of the row before; pure.

A row that was changed, taken out, put in or moved does not fit its neighbours. Each digest is signed, and so is the
end of the chain, so that whoever can write into the file alone can neither mend the chain nor cut it off.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from aggregator.ledger.records import Operation, SealedOperation

_ROW, _END, _BEGINNING = (f"fieldfold operations {part} 1".encode() for part in ("row", "end", "beginning"))

Verify = Callable[[str, bytes, bytes], bool]
"""(fingerprint of a key, signature, what was signed) -> whether that key is known and has signed it."""


class Sealing(Protocol):
    """A private key: its fingerprint, and what it signs with."""

    @property
    def fingerprint(self) -> str:
        """In hex."""

    def sign(self, message: bytes) -> bytes:
        """The signature."""


class Audited(msgspec.Struct, frozen=True):
    """What an audit came to.

    Attributes:
        count: rows that are as they were written, from the first on.
        digest: of the last of these, in hex; whoever notes it will know later that nothing before it was touched.
        keys: fingerprints of the keys that have signed, the first first.
        broken: what is wrong with the row behind them; empty where nothing is.
    """

    count: int
    digest: str
    keys: tuple[str, ...]
    broken: str = ""


def beginning(ledger: str) -> bytes:
    """What stands before the first row; `ledger` is the ledger's random name, so that no chain fits another."""
    return hashlib.sha256(_BEGINNING + ledger.encode()).digest()


def digest_of(previous: bytes, operation: Operation) -> bytes:
    """SHA-256 over the former row's digest and all of this row, each text with its length before it."""
    hashed = hashlib.sha256(_ROW + previous + struct.pack("<qd", operation.id, operation.at))
    for text in (operation.who, operation.command, operation.subject, operation.result):
        raw = text.encode()
        hashed.update(struct.pack("<I", len(raw)) + raw)
    return hashed.digest()


def end_of(count: int, digest: bytes) -> bytes:
    """What is signed to say that the chain ends here."""
    return _END + struct.pack("<q", count) + digest


def audit(
    ledger: str, rows: Iterable[SealedOperation], end: str, verify: Verify, noted: Iterable[str] = ()
) -> Audited:
    """Follows the chain from its beginning up to the first thing that is wrong.

    Args:
        ledger: its name.
        rows: all of them, in order.
        end: signature over `end_of` in hex; empty where nothing was ever written or signed.
        verify: knows the keys that are believed.
        noted: digests, in hex, of former audits, which must still be there.
    """
    digest, count = beginning(ledger), 0
    keys: dict[str, None] = {}
    missing = set(noted)
    last = ""
    for row in rows:
        if what := _wrong(digest, count, row, verify):
            return Audited(count, digest.hex(), tuple(keys), what)
        digest, count, last = bytes.fromhex(row.digest), row.operation.id, row.key
        keys[row.key] = None
        missing.discard(row.digest)
    what = ""
    if (count or end) and not verify(last, _hex(end), end_of(count, digest)):
        what = "the chain ends earlier than it was signed to: rows are missing at its end"
    elif missing:
        what = (
            f"{min(missing)[:16]} was noted at an earlier audit and is not in the chain: an older state was put back"
        )
    return Audited(count, digest.hex(), tuple(keys), what)


def _wrong(previous: bytes, count: int, row: SealedOperation, verify: Verify) -> str:
    if row.operation.id != count + 1:
        return f"row {count + 1} is missing; the next one is {row.operation.id}"
    if digest_of(previous, row.operation).hex() != row.digest:
        return f"row {row.operation.id} is not what was written, or the one before it is another"
    if not row.key:
        return f"row {row.operation.id} is not signed"
    if not verify(row.key, _hex(row.signature), bytes.fromhex(row.digest)):
        return f"row {row.operation.id} is not signed by a key that is known here (it names {row.key[:16]})"
    return ""


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
