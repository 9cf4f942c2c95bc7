"""The node's SQLite: what must outlive a power cut. Thread-safe; every method is one transaction."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from fieldfold.codec import Encoded, ErrorFeedback
from fieldfold.errors import CodecError
from fieldfold.params import Vector, digest, from_bytes, to_bytes
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import ClientUpdate, Receipt, pack, unpack
from node_app.database import open_database
from node_app.facts import Facts
from node_app.pieces import Pieces
from node_app.records import Decided, Waiting
from node_app.schema import TABLES

log = logging.getLogger(__name__)
HISTORY_KEPT = 1000
VECTORS_KEPT = 7
"""Enough for what the present task needs, and for what a few former ones left here."""


class Parcel(msgspec.Struct, frozen=True):
    """An update in the outbox.

    Attributes:
        has_left: some of it may be with the broker; from then on it is never taken back.
    """

    sequence: int
    digest: str
    run: str
    base_version: int
    has_left: bool
    body: bytes


class Unsent(msgspec.Struct, frozen=True):
    """What of a run was trained and has not been sent.

    Attributes:
        base_version: of the newest update.
        feedback: holds it, to be encoded together with the next delta.
        steps: optimizer steps of whole updates that are in it; 0 where it is only what the codec left out.
    """

    base_version: int
    feedback: ErrorFeedback
    steps: int


class StoredVector(msgspec.Struct, frozen=True):
    """Parameters with the task, run and version they belong to, and the normalisation of their inputs.

    `personal` are those that this gateway alone has trained.
    """

    task: str
    run: str
    version: int
    values: Vector
    normalisation: Normalisation | None
    personal: bool = False


class Totals(msgspec.Struct, frozen=True):
    """Counts since the store began."""

    accepted: int = 0
    rejected: int = 0


class Store:
    """Opens or creates the node's database; one that is damaged is set aside, and an empty one takes its place.

    Attributes:
        pieces: of an object that is being fetched.
        facts: single values.
        notice: why a former store was set aside; empty where it was not.

    Raises:
        StoreError: when it is locked by another daemon, a newer program wrote it, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database, self.notice = open_database(path, TABLES)
        self._transact = self._database.transact
        self.pieces, self.facts = Pieces(self._database), Facts(self._database)

    @property
    def damage(self) -> str:
        """What shows that the file is damaged; empty while nothing does."""
        return self._database.damage

    def require_room(self, size_bytes: int) -> None:
        """Refuses when the disk has no room for so much and a little more.

        Raises:
            StoreError: saying where, and how much there is.
        """
        self._database.require_room(size_bytes)

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    # -- bundles and vectors ----------------------------------------------------------------------------------------

    def put_bundle(self, name: str, data: bytes) -> None:
        """Keeps the present bundle and forgets the others."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM bundle")
            db.execute("INSERT INTO bundle VALUES (?, ?, '')", (name, data))

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
        """Keeps parameters under a purpose; of very many purposes the oldest are forgotten."""
        values = vector.values
        row = (purpose, vector.task, vector.run, vector.version, to_bytes(values), digest(values))
        rest = (msgspec.msgpack.encode(vector.normalisation), vector.personal)
        newest = "SELECT purpose FROM vector ORDER BY written DESC LIMIT ?"

        def work(db: sqlite3.Connection) -> None:
            (written,) = db.execute("SELECT coalesce(max(written), 0) + 1 FROM vector").fetchone()
            db.execute("INSERT OR REPLACE INTO vector VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *rest, written))
            db.execute(f"DELETE FROM vector WHERE purpose NOT IN ({newest})", (VECTORS_KEPT,))  # noqa: S608 - a constant

        self._transact(work)

    def vector(self, purpose: str, task: str) -> StoredVector | None:
        """The parameters under a purpose, when they belong to `task`.

        Raises:
            StoreDamagedError: when they are not what was put in.
        """
        query = "SELECT * FROM vector WHERE purpose = ? AND task = ?"
        found = self._transact(lambda db: db.execute(query, (purpose, task)).fetchone())
        if found is None:
            return None
        _, _, run, version, data, expected, packed, personal, _ = found
        try:
            normalisation = msgspec.msgpack.decode(packed, type=Normalisation | None)
            values = from_bytes(data)
        except (ValueError, msgspec.DecodeError) as error:
            raise self._database.damaged(f"the parameters kept as {purpose}: {error}") from None
        if digest(values) != expected:
            raise self._database.damaged(f"the parameters kept as {purpose} do not have their digest")
        return StoredVector(task, run, version, values, normalisation, bool(personal))

    def put_pinned(self, run: str, *, pinned: bool) -> None:
        """Notes whether the served model of a run stays whatever comes."""
        self.facts.put("pinned", run.encode() if pinned else b"")

    def pinned(self, run: str) -> bool:
        """Whether it does."""
        return self.facts.get("pinned") == run.encode()

    # -- the outbox ------------------------------------------------------------------------------------------------

    def unsent(self, run: str) -> Unsent | None:
        """What of `run` was trained and has not been sent; None before the first update."""
        query = "SELECT base_version, data, num_params, num_trained, steps FROM residual WHERE run = ?"
        row = self._transact(lambda db: db.execute(query, (run,)).fetchone())
        if row is None:
            return None
        try:
            feedback = ErrorFeedback.from_bytes(row[1], row[2], num_trained=row[3])
        except CodecError as error:
            raise self._database.damaged(f"what the codec left out: {error.reason}") from None
        return Unsent(row[0], feedback, row[4])

    def add_update(self, update: ClientUpdate, encoded: Encoded) -> Parcel:
        """Gives the update its sequence number and keeps it together with what it carries and the residual it left.

        Residuals of other runs are forgotten: nothing will be added to them any more.
        """
        run, feedback = update.run.hex(), encoded.feedback
        row = (run, update.base_version, 0, feedback.residual.size, feedback.num_trained, feedback.to_bytes())

        def work(db: sqlite3.Connection) -> Parcel:
            db.execute("DELETE FROM residual WHERE run != ?", (run,))
            db.execute("INSERT OR REPLACE INTO residual VALUES (?, ?, ?, ?, ?, ?)", row)
            return _enqueue(db, update, encoded.carried)

        return self._transact(work)

    def take_back(self, run: str) -> int:
        """Takes updates of which nothing has left out of the outbox, for a newer one to take their place; how many.

        What they carried is in the residual again. Those of other runs are dropped: nobody would fold them.
        """

        def work(db: sqlite3.Connection) -> int:
            db.execute("DELETE FROM outbox WHERE NOT has_left AND run != ?", (run,))
            rows = db.execute("SELECT body, carried FROM outbox WHERE NOT has_left ORDER BY sequence").fetchall()
            for body, carried in rows:
                _restore(db, unpack(ClientUpdate, body), carried)
            db.execute("DELETE FROM outbox WHERE NOT has_left")
            return len(rows)

        return self._transact(work)

    def depart(self, sequence: int) -> bool:
        """Notes that an update begins to leave; False when it was taken back before."""
        query = "UPDATE outbox SET has_left = 1 WHERE sequence = ?"
        return self._transact(lambda db: db.execute(query, (sequence,)).rowcount == 1)

    def num_waiting(self) -> int:
        """How many updates wait for their receipt."""
        (number,) = self._transact(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone())
        return int(number)

    def steps_waiting(self, run: str, base_version: int) -> int:
        """Optimizer steps in the update against a version of which nothing has left yet; 0 where there is none."""
        query = "SELECT body FROM outbox WHERE NOT has_left AND run = ? AND base_version = ?"
        rows = self._transact(lambda db: db.execute(query, (run, base_version)).fetchall())
        return sum(unpack(ClientUpdate, body).num_steps for (body,) in rows)

    def parcels(self) -> list[Parcel]:
        """What waits for its receipt, oldest first.

        Raises:
            StoreDamagedError: when one is not what was put in.
        """
        query = "SELECT sequence, digest, run, base_version, has_left, body FROM outbox ORDER BY sequence"
        rows = self._transact(lambda db: db.execute(query).fetchall())
        found = [Parcel(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows]
        for parcel in found:
            if object_digest(parcel.body) != parcel.digest:
                raise self._database.damaged(f"update {parcel.sequence} does not have its digest")
        return found

    def settle(self, receipt: Receipt) -> bool:
        """Takes an update out of the outbox; False when the receipt is for none that waits.

        An update whose number was used before (this store is younger than the node) gets a new one and stays. What
        one that came too late carried goes back into the residual, so that the next update brings it.
        """

        def work(db: sqlite3.Connection) -> bool:
            _raise_sequence(db, receipt.next_sequence)
            row = db.execute(
                "SELECT body, carried FROM outbox WHERE sequence = ? AND digest = ?",
                (receipt.sequence, receipt.update),
            ).fetchone()
            if row is None:
                return False
            update, carried = unpack(ClientUpdate, row[0]), row[1]
            db.execute("DELETE FROM outbox WHERE sequence = ?", (receipt.sequence,))
            if receipt.code == "sequence_used":
                _enqueue(db, update, carried)
                return True
            if receipt.code in ("stale", "no_model"):
                _restore(db, update, carried)
            accepted = receipt.decision == "accepted"
            db.execute(
                "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?)",
                (receipt.sequence, accepted, receipt.reason, receipt.staleness, len(row[0]), time.time()),
            )
            db.execute("DELETE FROM history WHERE sequence <= ?", (receipt.sequence - HISTORY_KEPT,))
            _count(db, "accepted" if accepted else "rejected")
            return True

        return self._transact(work)

    def outbox(self) -> list[Waiting]:
        """What waits for its receipt, oldest first, without the updates themselves."""
        query = (
            "SELECT sequence, digest, base_version, has_left, length(body), created_at FROM outbox ORDER BY sequence"
        )
        rows = self._transact(lambda db: db.execute(query).fetchall())
        return [Waiting(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]

    def history(self, limit: int) -> list[Decided]:
        """The newest decisions, newest first; HISTORY_KEPT of them are there at most."""
        query = "SELECT * FROM history ORDER BY sequence DESC LIMIT ?"
        rows = self._transact(lambda db: db.execute(query, (min(limit, HISTORY_KEPT),)).fetchall())
        return [Decided(row[0], bool(row[1]), *row[2:]) for row in rows]

    def totals(self) -> Totals:
        """Accepted and rejected updates since the store began."""
        return self._transact(lambda db: Totals(_number(db, "accepted"), _number(db, "rejected")))


def _enqueue(db: sqlite3.Connection, update: ClientUpdate, carried: bytes) -> Parcel:
    sequence = max(1, _number(db, "next_sequence"))
    body = pack(msgspec.structs.replace(update, sequence=sequence))
    parcel = Parcel(sequence, object_digest(body), update.run.hex(), update.base_version, has_left=False, body=body)
    db.execute(
        "INSERT INTO outbox VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
        (sequence, parcel.digest, parcel.run, parcel.base_version, body, carried, time.time()),
    )
    _raise_sequence(db, sequence + 1)
    return parcel


def _restore(db: sqlite3.Connection, update: ClientUpdate, carried: bytes) -> None:
    """Puts what a whole update carried back into the residual of its run, if that is still the present one."""
    run = update.run.hex()
    row = db.execute("SELECT data, num_params, num_trained FROM residual WHERE run = ?", (run,)).fetchone()
    if row is None:
        return
    feedback = ErrorFeedback.from_bytes(row[0], row[1], num_trained=row[2])
    try:
        feedback = feedback.restore(carried)
    except CodecError as error:
        log.error("update %d is given up, the sum is not finite: %s", update.sequence, error.reason)
        return
    data = feedback.to_bytes()
    db.execute("UPDATE residual SET data = ?, steps = steps + ? WHERE run = ?", (data, update.num_steps, run))


def _raise_sequence(db: sqlite3.Connection, to: int) -> None:
    if to > _number(db, "next_sequence"):
        db.execute("INSERT OR REPLACE INTO fact VALUES ('next_sequence', ?)", (str(to).encode(),))


def _count(db: sqlite3.Connection, key: str) -> None:
    db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, str(_number(db, key) + 1).encode()))


def _number(db: sqlite3.Connection, key: str) -> int:
    row: tuple[Any, ...] | None = db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
    return int(row[0]) if row else 0
