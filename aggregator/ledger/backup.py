"""A copy of the ledger while the aggregator runs, and a ledger from such a copy."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import msgspec

from aggregator.ledger.database import LOCK_WAIT_S
from aggregator.ledger.ledger import Ledger
from aggregator.records import BackupView
from fieldfold.errors import FieldfoldError, StoreError

SLICE_BYTES = 1 << 20
"""Copied at a time; between two slices intake goes on."""
PAUSE_S = 0.001
"""After each slice, so that whoever waits for the ledger gets it: a lock is not handed over by itself."""


class _StoppedError(Exception):
    """The program ends before the backup is whole."""


class Backup:
    """One backup, made in a thread of its own by SQLite's own means: what is committed meanwhile is in it too.

    It is written beside `path` and bears its name only when it is whole.

    Args:
        ledger: an open one; whoever else uses it holds `ledger.turn` meanwhile.
        path: absolute, in a folder that is there; nothing may be there yet.

    Raises:
        StoreError: when it cannot begin.
    """

    def __init__(self, ledger: Ledger, path: Path) -> None:
        self._ledger, self._path, self._part = ledger, path, path.with_name(f"{path.name}.part")
        if not path.is_absolute() or not path.parent.is_dir():
            raise StoreError(f"{path}: there is no such folder on the aggregator's machine", "make it first")
        _refuse_to_overwrite(path)
        self.view = BackupView(str(path), "running")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Gives up, unless it is whole already."""
        self._stopping.set()
        self._thread.join()

    def wait(self) -> None:
        """Until it is whole or has failed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._part.unlink(missing_ok=True)
            self._copy()
            _refuse_to_overwrite(self._path)
            _place(self._part, self._path)
        except _StoppedError:
            self._fail("the aggregator ended before it was whole; make it again")
        except (OSError, sqlite3.Error, FieldfoldError) as error:
            self._fail(str(error))
        else:
            self.view = msgspec.structs.replace(self.view, state="done", done_bytes=self.view.size_bytes)

    def _copy(self) -> None:
        with contextlib.closing(sqlite3.connect(self._part)) as target:
            with self._ledger.turn:
                self._ledger.copy_into(target, SLICE_BYTES, self._between_slices)
            # One file, without a log beside it: it may lie where nothing can be written.
            target.execute("PRAGMA journal_mode = DELETE")

    def _between_slices(self, done_bytes: int, size_bytes: int) -> None:
        self.view = msgspec.structs.replace(self.view, done_bytes=done_bytes, size_bytes=size_bytes)
        if self._stopping.is_set():
            raise _StoppedError
        self._ledger.turn.release()
        try:
            time.sleep(PAUSE_S)
        finally:
            self._ledger.turn.acquire()

    def _fail(self, trouble: str) -> None:
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
        self.view = msgspec.structs.replace(self.view, state="failed", trouble=trouble)


def restore(backup: Path, path: Path, federation: str) -> Path | None:
    """Puts a backup in a ledger's place; what lay there is kept under another name, which is returned.

    Args:
        backup: stays as it is.
        path: where the ledger is to be, of an aggregator that does not run.
        federation: whose the backup must be.

    Raises:
        StoreError: when the backup is none or damaged, or the ledger's place is in use.
    """
    ledger = Ledger.existing(backup)
    try:
        if ledger.federation != federation:
            raise StoreError(f"{backup}: it is of the federation {ledger.federation}, not {federation}")
        ledger.check()
    finally:
        ledger.close()
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(backup, part)
        former = _set_aside(path)
        _place(part, path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror}", "check the disk and the permissions"
        ) from None
    return former


def _set_aside(path: Path) -> Path | None:
    """Moves a ledger away with all that belongs to it: its log, played over another file, would spoil that."""
    if not path.exists():
        return None
    _require_free(path)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")
    former = path.with_name(f"{path.name}.before-{stamp}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(former.with_name(former.name + suffix))
    return former


def _require_free(path: Path) -> None:
    """Refuses a file that a program has open; one that is damaged will do."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)) as database:
        try:
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise StoreError(f"{path}: an aggregator runs on it", "stop it first") from None


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path}: there is a file already", "give a name that is free")


def _place(part: Path, path: Path) -> None:
    """Gives a whole file its name, and makes sure that it outlives a power cut."""
    _flush(part)
    part.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """A file's or a folder's content onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
