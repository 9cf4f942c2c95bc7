"""Single values that must outlive a restart, in the node's store."""

from __future__ import annotations

import sqlite3

from node_app.database import Database


class Facts:
    """Key -> value. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._transact = database.transact

    def get(self, key: str) -> bytes | None:
        """The value; None where there is none."""
        row = self._transact(lambda db: db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone())
        return bytes(row[0]) if row else None

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value in place of the former one.

        Raises:
            StoreError: when the disk refuses.
        """
        self._transact(lambda db: db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, value)))

    def number(self, key: str) -> int:
        """The number under a key; 0 where there is none."""
        return int(self.get(key) or 0)

    def rise(self, key: str) -> int:
        """The number under a key, raised by one.

        Raises:
            StoreError: when the disk refuses.
        """

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
            number = int(row[0]) + 1 if row else 1
            db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, str(number).encode()))
            return number

        return self._transact(work)
