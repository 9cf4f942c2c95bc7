"""One SQLite file of the ledger's form: opened, locked for this process, written in transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from aggregator.ledger.schema import FORMAT, TABLES
from fieldfold.errors import StoreError

LOCK_WAIT_S = 2.0
PAGE_BYTES = 1 << 14
"""Of new files: updates and checkpoints are large values, written page by page; small rows cost the same."""


class Database:
    """Opens or creates the file of one federation. One thread uses it at a time; where there are more, by `turn`.

    Args:
        path: the file.
        federation: whose it is; None takes whatever lies there and makes nothing.

    Raises:
        StoreError: when the file is damaged, locked by another program, of another federation or format.
    """

    def __init__(self, path: Path, federation: str | None) -> None:
        self.path = path
        self.turn = threading.Lock()
        self._may_write = federation is not None or all(os.access(each, os.W_OK) for each in (path, path.parent))
        try:
            self._db = self._connect(federation)
        except (OSError, sqlite3.Error) as error:
            raise self._trouble("cannot be opened", error) from None
        try:
            self._set_up(federation)
        except sqlite3.Error as error:
            self._db.close()
            raise self._trouble("cannot be opened", error) from None
        except StoreError:
            self._db.close()
            raise

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Opens a file that is there, whichever federation's it is; it may be one that cannot be written to.

        Raises:
            StoreError: as above, and when there is no ledger.
        """
        if not path.is_file():
            raise StoreError(f"{path}: there is no such file", "give the path of a ledger.sqlite or of a backup")
        return cls(path, None)

    def _connect(self, federation: str | None) -> sqlite3.Connection:
        if federation is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._may_write:
            return sqlite3.connect(self.path, isolation_level=None, timeout=LOCK_WAIT_S, check_same_thread=False)
        uri = f"file:{quote(str(self.path.resolve()))}?mode=ro&immutable=1"
        return sqlite3.connect(uri, uri=True, isolation_level=None)

    def _set_up(self, federation: str | None) -> None:
        """Locks the file for this process, and makes what is not there yet."""
        if self._may_write:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            # Some systems have it on: every checkpoint that is dropped would be written once more, as zeros.
            self._db.execute("PRAGMA secure_delete = OFF")
        if federation is None:
            if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'meta'"):
                raise StoreError(f"{self.path}: this is no ledger", "give a ledger.sqlite or a backup of one")
            [(federation,)] = self._rows("SELECT value FROM meta WHERE key = 'federation'")
            self._insist("format", str(FORMAT))
        if self._may_write:
            if self._rows("PRAGMA page_count") == [(0,)]:
                self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(TABLES)
            self._db.execute(
                "INSERT OR IGNORE INTO meta VALUES"
                " ('format', ?), ('federation', ?), ('name', lower(hex(randomblob(8)))), ('term', '0')",
                (FORMAT, federation),
            )
        self._insist("format", str(FORMAT))
        self._insist("federation", federation)
        self.federation = federation

    def _insist(self, key: str, value: str) -> None:
        """Refuses a file in which a fact is another one."""
        found = self._fact(key)
        if found != value:
            raise StoreError(f"{self.path}: its {key} is {found}, not {value}", "give another state_dir")

    def _fact(self, key: str) -> str:
        [(value,)] = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(value)

    def close(self) -> None:
        """Folds the write-ahead log into the file and lets go of it."""
        self._db.close()

    def check(self) -> None:
        """Reads every page.

        Raises:
            StoreError: when the file is damaged.
        """
        found = self._rows("PRAGMA integrity_check(1)")
        if found != [("ok",)]:
            raise StoreError(f"{self.path}: the file is damaged: {found[0][0]}", "take another backup")

    def copy_into(self, target: sqlite3.Connection, slice_bytes: int, between: Callable[[int, int], None]) -> None:
        """Copies the whole file; what is written between two slices, through this object, is in the copy too.

        Args:
            target: an empty database.
            slice_bytes: how much is copied at a time.
            between: called after each slice with the bytes that are done, and all; what it raises ends the copy.
        """
        [(page_bytes,)] = self._rows("PRAGMA page_size")

        def told(_: int, remaining: int, total: int) -> None:
            between((total - remaining) * page_bytes, total * page_bytes)

        self._db.backup(target, pages=max(1, slice_bytes // page_bytes), progress=told, sleep=0)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes within are on disk together when the block ends, or not at all.

        Raises:
            StoreError: when the disk is full or fails; nothing was written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._trouble("cannot be written", error) from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """On some errors, a full disk among them, SQLite has rolled back already."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _each(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The answer to a query, line by line.

        Raises:
            StoreError: when the file is damaged or the disk fails.
        """
        try:
            yield from self._db.execute(query, values)
        except sqlite3.Error as error:
            raise self._trouble("cannot be read", error) from None

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The whole answer."""
        return list(self._each(query, values))

    def _script(self, commands: str) -> None:
        """Runs commands to their ends; a cursor would stop at the first line of one that names no columns.

        Raises:
            StoreError: when the file is damaged or the disk fails.
        """
        try:
            self._db.executescript(commands)
        except sqlite3.Error as error:
            raise self._trouble("cannot be written", error) from None

    def _row(self, query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """The first line of the answer."""
        return next(iter(self._rows(query, values)), None)

    def _trouble(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: the ledger {what}: {error}", _hint(error))


def _hint(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return "another program has it open; of a running aggregator take a backup, and look into that"
    if "full" in text:
        return "make room on that disk"
    return "check the disk and the permissions; restore a backup if the file is damaged"
