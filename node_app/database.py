"""The file under the node's store: checked when it is opened, set aside when it cannot be trusted. Thread-safe."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fieldfold.errors import StoreDamagedError, StoreError

T = TypeVar("T")
FORMAT = 4
"""Goes up when the tables change in a way that an older or a newer program does not understand."""
OURS = 0x4646_4E44
"""SQLite's application id of a node's store: FFND."""
SET_ASIDE_KEPT = 3
LOG_KEPT_BYTES = 4 << 20
"""The write-ahead log is cut back to this after a large bundle went through it."""
_BESIDE = ("", "-wal", "-journal", "-shm")


def open_database(path: Path, tables: str) -> tuple[Database, str]:
    """The database at `path`, and why a former one was set aside; empty where it was not.

    Raises:
        StoreError: when another daemon uses it, a newer program wrote it, or the disk refuses.
    """
    if not _mark(path).exists():
        try:
            return Database(path, tables), ""
        except StoreDamagedError as error:
            reason = error.reason
    else:
        reason = f"{path}: was found damaged while the node ran"
    place = _set_aside(path)
    return Database(path, tables), f"{reason}; it was set aside as {place.name}, and the node began with an empty one"


class Database:
    """Creates or opens the file; `transact` is all there is to do with it.

    Args:
        tables: statements that create what is not there yet.

    Raises:
        StoreDamagedError: when it is damaged, or not a store of this format or an older program's.
        StoreError: when another daemon uses it, a newer program wrote it, or the disk refuses.
    """

    def __init__(self, path: Path, tables: str) -> None:
        self.path = path
        self.damage = ""
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: the node's store cannot be opened: {error}", _hint(error)) from None
        try:
            self._open(tables)
        except BaseException:
            self._db.close()
            raise

    def _open(self, tables: str) -> None:
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._check()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
            self._db.executescript(tables)
            self._db.execute(f"PRAGMA application_id = {OURS}")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error as error:
            kind = StoreDamagedError if is_damage(error) else StoreError
            raise kind(f"{self.path}: the node's store cannot be opened: {error}", _hint(error)) from None

    def _check(self) -> None:
        """Whether it is empty, or a sound store of this format."""
        if not self._number("SELECT count(*) FROM sqlite_schema"):
            return
        found, ours = self._number("PRAGMA user_version"), self._number("PRAGMA application_id") == OURS
        if ours and found > FORMAT:
            raise StoreError(
                f"{self.path}: a newer fieldfold wrote it (store format {found}; this one reads {FORMAT})",
                "update fieldfold, or move the file away: the node then begins anew, without what it had not sent",
            )
        if not ours or found < FORMAT:
            raise StoreDamagedError(f"{self.path}: is not a node's store of format {FORMAT}", "it is set aside")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreDamagedError(f"{self.path}: is damaged: {' '.join(verdict.split())}", "it is set aside")

    def _number(self, query: str) -> int:
        (value,) = self._db.execute(query).fetchone()
        return int(value)

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()

    def require_room(self, size_bytes: int) -> None:
        """See Store.require_room."""
        free = shutil.disk_usage(self.path.parent).free
        if free < size_bytes + LOG_KEPT_BYTES:
            raise StoreError(f"{self.path.parent}: the disk is full, {free} bytes are left", "make room on that disk")

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` as one transaction: all of it is on the disk afterwards, or nothing.

        Raises:
            StoreDamagedError: when the file turns out to be damaged; the next start sets it aside.
            StoreError: when the disk refuses.
        """
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
                if is_damage(error):
                    raise self.damaged(str(error)) from None
                raise StoreError(f"{self.path}: cannot be used: {error}", _hint(error)) from None
            return result

    def damaged(self, reason: str) -> StoreDamagedError:
        """The error to raise where what was read is not what was written; the next start sets the file aside."""
        self.damage = f"{self.path}: is damaged: {reason}"
        error = StoreDamagedError(self.damage, "start the node again: it sets the file aside and begins anew")
        try:
            _mark(self.path).touch()
        except OSError:
            return error  # the disk refuses everything; what is damaged will be found again
        return error


def is_damage(error: Exception) -> bool:
    """Whether SQLite says that the file itself is broken, not that it cannot be used now."""
    return any(word in str(error) for word in ("malformed", "not a database"))


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _set_aside(path: Path) -> Path:
    """Renames the file and what SQLite laid beside it; of those that lie there already the newest few are kept."""
    try:
        number = max(_numbers(path), default=0) + 1
        place = path.with_name(f"{path.name}.damaged-{number}")
        for ending in _BESIDE:
            file = Path(f"{path}{ending}")
            if file.exists():
                file.rename(f"{place}{ending}")
        for old in [each for each in _numbers(path) if each <= number - SET_ASIDE_KEPT]:
            for ending in _BESIDE:
                path.with_name(f"{path.name}.damaged-{old}{ending}").unlink(missing_ok=True)
        _mark(path).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: is damaged and cannot be set aside: {error.strerror}", _hint(error)) from None
    return place


def _numbers(path: Path) -> list[int]:
    """Of the files that were set aside before."""
    pattern = re.compile(re.escape(path.name) + r"\.damaged-(\d+)")
    return [int(found[1]) for each in path.parent.iterdir() if (found := pattern.fullmatch(each.name))]


def _hint(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return "another daemon runs on it"
    if "full" in text:
        return "make room on that disk"
    return "check the disk and the permissions"
