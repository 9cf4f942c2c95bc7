"""What people asked for, and who signs with which key: what of it is in force; as rows of the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from aggregator.ledger.chain import Sealing, beginning, digest_of, end_of
from aggregator.ledger.records import Operation, SealedOperation, TurnBack
from aggregator.ledger.versions import Versions

OPERATIONS_SHOWN = 500


class Operations(Versions):
    """The part of the ledger that speaks of people; all writes are within a `transaction`."""

    seal: Sealing | None = None
    """Signs what people ask for; nobody does where it is None."""

    def put_operation(self, who: str, command: str, subject: str, result: str) -> None:
        """Notes that something was done, in the transaction in which it is."""
        last = self._row("SELECT id, digest FROM operation ORDER BY id DESC LIMIT 1")
        number, previous = (last[0] + 1, bytes.fromhex(last[1])) if last else (1, beginning(self._fact("name")))
        digest = digest_of(previous, row := Operation(number, time.time(), who, command, subject, result))
        key, signature, end = "", "", ""
        if self.seal is not None:
            key, signature = self.seal.fingerprint, self.seal.sign(digest).hex()
            end = self.seal.sign(end_of(number, digest)).hex()
        self._db.execute(
            "INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*msgspec.structs.astuple(row), key, digest.hex(), signature),
        )
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('operations_end', ?)", (end,))

    def sealed(self, after: int = 0) -> list[SealedOperation]:
        """Operations behind the row `after`, the oldest first, so many at a time."""
        rows = self._rows("SELECT * FROM operation WHERE id > ? ORDER BY id LIMIT ?", (after, OPERATIONS_SHOWN))
        return [SealedOperation(Operation(*row[:6]), *row[6:]) for row in rows]

    def all_sealed(self) -> Iterator[SealedOperation]:
        """All of them, in order."""
        after = 0
        while rows := self.sealed(after):
            yield from rows
            after = rows[-1].operation.id

    def operations_end(self) -> str:
        """The signature under the end of the chain, in hex."""
        row = self._row("SELECT value FROM meta WHERE key = 'operations_end'")
        return str(row[0]) if row else ""

    def operations(self, limit: int = OPERATIONS_SHOWN) -> list[Operation]:
        """The newest, newest first."""
        rows = self._rows(
            "SELECT id, at, who, command, subject, result FROM operation ORDER BY id DESC LIMIT ?",
            (min(limit, OPERATIONS_SHOWN),),
        )
        return [Operation(*row) for row in rows]

    def exclude(self, node: str, who: str) -> None:
        """Takes nothing of a node from now on."""
        self._db.execute("INSERT OR IGNORE INTO excluded VALUES (?, ?, ?)", (node, who, time.time()))

    def readmit(self, node: str) -> None:
        """Takes a node's updates again."""
        self._db.execute("DELETE FROM excluded WHERE node = ?", (node,))

    def excluded(self) -> dict[str, str]:
        """Node -> who has excluded it."""
        return dict(self._rows("SELECT node, who FROM excluded ORDER BY node"))

    def put_signer(self, node: str, standing: bytes) -> None:
        """Keeps which key a node signs with."""
        self._db.execute("INSERT OR REPLACE INTO signer VALUES (?, ?)", (node, standing))

    def signers(self) -> dict[str, bytes]:
        """Node -> what is known of its key."""
        return {node: bytes(standing) for node, standing in self._rows("SELECT node, standing FROM signer")}

    @property
    def issued(self) -> int:
        """Above all numbers that the aggregator has issued with it."""
        row = self._row("SELECT value FROM meta WHERE key = 'issued'")
        return int(row[0]) if row else 0

    def put_issued(self, number: int) -> None:
        """Nothing above this number is issued before a higher one is written."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('issued', ?)", (str(number),))

    def hold(self, contribution: int) -> None:
        """Nothing behind this place is folded until `let_go`."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('held_at', ?)", (str(contribution),))

    def let_go(self) -> None:
        """Everything is folded as it comes."""
        self._db.execute("DELETE FROM meta WHERE key = 'held_at'")

    def held_at(self) -> int | None:
        """Up to where the log is folded while the model is held; None while it is not."""
        row = self._row("SELECT value FROM meta WHERE key = 'held_at'")
        return int(row[0]) if row else None

    def put_turn_back(self, turn: TurnBack) -> None:
        """Notes that a version is an older one again."""
        self._db.execute(
            "INSERT INTO turn_back VALUES (?, ?, ?, ?)", (turn.task, turn.version, turn.contribution, turn.to_version)
        )

    def turns_back(self, task: str) -> list[TurnBack]:
        """All of a task, oldest first."""
        rows = self._rows(
            "SELECT task, version, contribution, to_version FROM turn_back WHERE task = ? ORDER BY version", (task,)
        )
        return [TurnBack(*row) for row in rows]
