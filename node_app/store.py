"""The node's SQLite: what must outlive a power cut. Thread-safe; every method is one transaction."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fieldfold.codec import ErrorFeedback
from fieldfold.errors import StoreError
from fieldfold.params import Vector, from_bytes, to_bytes
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import ClientUpdate, Receipt, pack, unpack

T = TypeVar("T")
HISTORY_KEPT = 1000

TABLES = """
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
-- `tried` names the runtime that the bundle has passed its trial with.
CREATE TABLE IF NOT EXISTS bundle (
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    tried TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Parameters by purpose: `global` is the newest version, `served` the one predictions are made with, whole: shared
-- and then local values. `local/DIGEST` is what this gateway alone trains of a task, and never sends.
CREATE TABLE IF NOT EXISTS vector (
    purpose TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    run TEXT NOT NULL,
    version INTEGER NOT NULL,
    data BLOB NOT NULL,
    normalisation BLOB NOT NULL
) STRICT, WITHOUT ROWID;
-- What the codec left out of the updates of a run so far, and the version the newest of them is against.
CREATE TABLE IF NOT EXISTS residual (
    run TEXT PRIMARY KEY,
    base_version INTEGER NOT NULL,
    num_params INTEGER NOT NULL,
    num_trained INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS history (
    sequence INTEGER PRIMARY KEY,
    accepted INTEGER NOT NULL,
    reason TEXT NOT NULL,
    staleness INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    decided_at REAL NOT NULL
) STRICT;
"""


class Parcel(msgspec.Struct, frozen=True):
    """An update in the outbox."""

    sequence: int
    digest: str
    body: bytes


class StoredVector(msgspec.Struct, frozen=True):
    """Parameters with the task, run and version they belong to, and the normalisation of their inputs."""

    task: str
    run: str
    version: int
    values: Vector
    normalisation: Normalisation | None


class Totals(msgspec.Struct, frozen=True):
    """Counts since the store began."""

    accepted: int = 0
    rejected: int = 0


class Store:
    """Opens or creates the node's database.

    Raises:
        StoreError: when it is damaged, locked by another daemon, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: the node's store cannot be opened: {error}", _hint(error)) from None
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(TABLES)
        except sqlite3.Error as error:
            self._db.close()
            raise StoreError(f"{path}: the node's store cannot be opened: {error}", _hint(error)) from None

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    result = work(self._db)
                    self._db.execute("COMMIT")
                except BaseException:
                    # A full disk makes SQLite roll back by itself.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: cannot be used: {error}", _hint(error)) from None
            return result

    # -- bundles and vectors ----------------------------------------------------------------------------------------

    def put_bundle(self, digest: str, data: bytes) -> None:
        """Keeps the present bundle and forgets the others."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM bundle")
            db.execute("INSERT INTO bundle VALUES (?, ?, '')", (digest, data))

        self._transact(work)

    def bundle(self) -> bytes | None:
        """The present bundle's file."""
        row = self._transact(lambda db: db.execute("SELECT data FROM bundle").fetchone())
        return row[0] if row else None

    def put_tried(self, digest: str, runtime: str) -> None:
        """Remembers the runtime that the present bundle has passed its trial with."""
        self._transact(lambda db: db.execute("UPDATE bundle SET tried = ? WHERE digest = ?", (runtime, digest)))

    def tried(self, digest: str) -> str:
        """The runtime that the bundle has passed its trial with; empty for one that has not."""
        row = self._transact(lambda db: db.execute("SELECT tried FROM bundle WHERE digest = ?", (digest,)).fetchone())
        return str(row[0]) if row else ""

    def put_vector(self, purpose: str, vector: StoredVector) -> None:
        """Keeps parameters under a purpose."""
        normalisation = msgspec.msgpack.encode(vector.normalisation)
        row = (purpose, vector.task, vector.run, vector.version, to_bytes(vector.values), normalisation)
        self._transact(lambda db: db.execute("INSERT OR REPLACE INTO vector VALUES (?, ?, ?, ?, ?, ?)", row))

    def vector(self, purpose: str, task: str) -> StoredVector | None:
        """The parameters under a purpose, when they belong to `task`."""
        query = "SELECT task, run, version, data, normalisation FROM vector WHERE purpose = ? AND task = ?"
        row = self._transact(lambda db: db.execute(query, (purpose, task)).fetchone())
        if row is None:
            return None
        normalisation = msgspec.msgpack.decode(row[4], type=Normalisation | None)
        return StoredVector(row[0], row[1], row[2], from_bytes(row[3]), normalisation)

    # -- the outbox ------------------------------------------------------------------------------------------------

    def residual(self, run: str) -> tuple[int, ErrorFeedback] | None:
        """Base version of the newest update of `run`, and the residual it left; None before the first."""
        query = "SELECT base_version, data, num_params, num_trained FROM residual WHERE run = ?"
        row = self._transact(lambda db: db.execute(query, (run,)).fetchone())
        return (row[0], ErrorFeedback.from_bytes(row[1], row[2], num_trained=row[3])) if row else None

    def add_update(self, update: ClientUpdate, feedback: ErrorFeedback) -> Parcel:
        """Gives the update its sequence number and keeps it together with the residual it left.

        Residuals of other runs are forgotten: nothing will be added to them any more.
        """
        run = update.run.hex()
        row = (run, update.base_version, feedback.residual.size, feedback.num_trained, feedback.to_bytes())

        def work(db: sqlite3.Connection) -> Parcel:
            db.execute("DELETE FROM residual WHERE run != ?", (run,))
            db.execute("INSERT OR REPLACE INTO residual VALUES (?, ?, ?, ?, ?)", row)
            return _enqueue(db, update)

        return self._transact(work)

    def num_waiting(self) -> int:
        """How many updates wait for their receipt."""
        (number,) = self._transact(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone())
        return int(number)

    def parcels(self) -> list[Parcel]:
        """What waits for its receipt, oldest first."""
        query = "SELECT sequence, digest, body FROM outbox ORDER BY sequence"
        return [Parcel(*row) for row in self._transact(lambda db: db.execute(query).fetchall())]

    def settle(self, receipt: Receipt) -> bool:
        """Takes an update out of the outbox; False when the receipt is for none that waits.

        An update whose number was used before (this store is younger than the node) gets a new one and stays. What
        one that came too late carried goes back into the residual, so that the next update brings it.
        """

        def work(db: sqlite3.Connection) -> bool:
            _raise_sequence(db, receipt.next_sequence)
            row = db.execute(
                "SELECT body FROM outbox WHERE sequence = ? AND digest = ?", (receipt.sequence, receipt.update)
            ).fetchone()
            if row is None:
                return False
            db.execute("DELETE FROM outbox WHERE sequence = ?", (receipt.sequence,))
            if receipt.code == "sequence_used":
                _enqueue(db, unpack(ClientUpdate, row[0]))
                return True
            if receipt.code in ("stale", "no_model"):
                _restore(db, unpack(ClientUpdate, row[0]))
            accepted = receipt.decision == "accepted"
            db.execute(
                "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?)",
                (receipt.sequence, accepted, receipt.reason, receipt.staleness, len(row[0]), time.time()),
            )
            db.execute("DELETE FROM history WHERE sequence <= ?", (receipt.sequence - HISTORY_KEPT,))
            _count(db, "accepted" if accepted else "rejected")
            return True

        return self._transact(work)

    def totals(self) -> Totals:
        """Accepted and rejected updates since the store began."""
        return self._transact(lambda db: Totals(_number(db, "accepted"), _number(db, "rejected")))


def _hint(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return "another daemon runs on it"
    if "full" in text:
        return "make room on that disk"
    if "malformed" in text or "not a database" in text:
        return "move it away; the node then begins anew, without what it had not sent"
    return "check the disk and the permissions"


def _enqueue(db: sqlite3.Connection, update: ClientUpdate) -> Parcel:
    sequence = max(1, _number(db, "next_sequence"))
    body = pack(msgspec.structs.replace(update, sequence=sequence))
    parcel = Parcel(sequence, object_digest(body), body)
    db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?)", (parcel.sequence, parcel.digest, body, time.time()))
    _raise_sequence(db, sequence + 1)
    return parcel


def _restore(db: sqlite3.Connection, update: ClientUpdate) -> None:
    run = update.run.hex()
    row = db.execute("SELECT data, num_params, num_trained FROM residual WHERE run = ?", (run,)).fetchone()
    if row is not None:
        feedback = ErrorFeedback.from_bytes(row[0], row[1], num_trained=row[2]).restore(update.payload)
        db.execute("UPDATE residual SET data = ? WHERE run = ?", (feedback.to_bytes(), run))


def _raise_sequence(db: sqlite3.Connection, to: int) -> None:
    if to > _number(db, "next_sequence"):
        db.execute("INSERT OR REPLACE INTO fact VALUES ('next_sequence', ?)", (str(to).encode(),))


def _count(db: sqlite3.Connection, key: str) -> None:
    db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, str(_number(db, key) + 1).encode()))


def _number(db: sqlite3.Connection, key: str) -> int:
    row: tuple[Any, ...] | None = db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0
