"""Pieces of an object that is being fetched, so that a power cut on a slow link does not begin it anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

import msgspec

from node_app.database import Database


class Fetching(msgspec.Struct, frozen=True):
    """An object that is under way.

    Attributes:
        kind: of object; deltas are short and are not kept.
        version: that a snapshot is of.
        prefix: topic that its chunks lie below.
    """

    digest: str
    kind: Literal["bundle", "snapshot", "delta"]
    version: int
    prefix: str
    size_bytes: int
    chunk_bytes: int


class Pieces:
    """What has come of one object; never more than its announced size."""

    def __init__(self, database: Database) -> None:
        self._transact = database.transact

    def keep(self, fetching: Fetching, pieces: Mapping[int, bytes]) -> None:
        """Adds pieces, by their position; those of another object are forgotten."""

        def work(db: sqlite3.Connection) -> None:
            row = msgspec.structs.astuple(fetching)
            if db.execute("SELECT * FROM fetching").fetchall() != [row]:
                _forget(db)
                db.execute("INSERT INTO fetching VALUES (?, ?, ?, ?, ?, ?)", row)
            db.executemany("INSERT OR REPLACE INTO piece VALUES (?, ?)", pieces.items())

        self._transact(work)

    def kept(self) -> tuple[Fetching, dict[int, bytes]] | None:
        """The object under way, and what has come of it."""

        def work(db: sqlite3.Connection) -> tuple[Fetching, dict[int, bytes]] | None:
            row = db.execute("SELECT * FROM fetching").fetchone()
            return (Fetching(*row), dict(db.execute("SELECT * FROM piece"))) if row else None

        return self._transact(work)

    def forget(self) -> None:
        """It is complete, or there is a newer one."""
        self._transact(_forget)


def _forget(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM piece")
    db.execute("DELETE FROM fetching")
