"""Released versions, and where and with which settings their fold can be taken up; as rows of the ledger."""

from __future__ import annotations

import time

import msgspec

from aggregator.ledger.database import Database
from aggregator.ledger.records import Checkpoint, Place, Stretch, VersionRecord
from aggregator.records import Released

NEWEST_KEPT = 2
"""Checkpoints; besides, the first of every day is kept until its time is dropped altogether."""


class Versions(Database):
    """The part of the ledger that speaks of the model; all writes are within a `transaction`."""

    def put_version(self, record: VersionRecord) -> None:
        """Writes a version before it is published."""
        self._db.execute(
            "INSERT INTO version (task, version, contribution, parameters, delta, weights, released_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record.task,
                record.version,
                record.contribution,
                record.parameters,
                record.delta,
                msgspec.json.encode(record.weights),
                time.time(),
            ),
        )

    def version(self, task: str, version: int) -> VersionRecord | None:
        """One released version."""
        row = self._row(
            "SELECT task, version, contribution, parameters, delta, weights FROM version"
            " WHERE task = ? AND version = ?",
            (task, version),
        )
        if row is None:
            return None
        return VersionRecord(row[0], row[1], row[2], row[3], row[4], _weights(row[5]))

    def version_places(self, task: str) -> dict[int, int]:
        """Version -> the last contribution in it, for all versions, in order."""
        return dict(self._rows("SELECT version, contribution FROM version WHERE task = ? ORDER BY version", (task,)))

    def newest_version(self, task: str) -> int:
        """The number of the newest version that is written; -1 before version 0."""
        [(newest,)] = self._rows("SELECT max(version) FROM version WHERE task = ?", (task,))
        return -1 if newest is None else int(newest)

    def delta_sizes(self, task: str, after: int, up_to: int) -> dict[int, int]:
        """Version -> bytes of its delta message, for the versions behind `after`, up to `up_to`."""
        rows = self._rows(
            "SELECT version, length(delta) FROM version WHERE task = ? AND version > ? AND version <= ?",
            (task, max(after, 0), up_to),
        )
        return dict(rows)

    def put_score(self, task: str, version: int, score: float) -> None:
        """Notes how a version did on the held-out data."""
        self._db.execute("UPDATE version SET score = ? WHERE task = ? AND version = ?", (score, task, version))

    def put_checkpoint(self, point: Checkpoint) -> None:
        """Writes a checkpoint; of the former ones the newest stays, and of each day the first."""
        self._db.execute(
            "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?)",
            (point.task, point.version, point.contribution, point.exact, point.released, point.state, time.time()),
        )
        self._db.execute(
            "DELETE FROM checkpoint WHERE task = ?1 AND version NOT IN"
            " (SELECT version FROM checkpoint WHERE task = ?1 ORDER BY version DESC LIMIT ?2) AND version NOT IN"
            " (SELECT min(version) FROM checkpoint WHERE task = ?1 GROUP BY CAST(written_at / 86400 AS INTEGER))",
            (point.task, NEWEST_KEPT),
        )

    def put_stretch(self, stretch: Stretch) -> None:
        """Notes with which settings the fold goes on; replaces a row at the same place in the log."""
        self._db.execute(
            "INSERT OR REPLACE INTO stretch VALUES (?, ?, ?, ?, ?, ?)",
            (stretch.task, stretch.contribution, stretch.version, stretch.settings, stretch.fresh, time.time()),
        )

    def stretches(self, task: str) -> list[Stretch]:
        """All stretches of a task's log, in order; the first begins before the first contribution."""
        rows = self._rows(
            "SELECT task, contribution, version, settings, fresh FROM stretch WHERE task = ? ORDER BY contribution",
            (task,),
        )
        return [Stretch(each, place, version, told, bool(fresh)) for each, place, version, told, fresh in rows]

    def checkpoint(self, task: str, version: int | None = None) -> Checkpoint | None:
        """The newest checkpoint of a task, or the one of a version."""
        row = self._row(
            "SELECT task, version, contribution, exact, released, state FROM checkpoint"
            " WHERE task = ?1 AND version = ifnull(?2, version) ORDER BY version DESC LIMIT 1",
            (task, version),
        )
        return Checkpoint(*row) if row else None

    def checkpoints(self, task: str) -> list[Place]:
        """Where a task has checkpoints, in order."""
        return [place for place, _ in self.dated_checkpoints(task)]

    def dated_checkpoints(self, task: str) -> list[tuple[Place, float]]:
        """The same, with the times at which they were written (s since 1970)."""
        rows = self._rows(
            "SELECT version, contribution, written_at FROM checkpoint WHERE task = ? ORDER BY version", (task,)
        )
        return [(Place(*row[:2]), row[2]) for row in rows]

    def released_lately(self, task: str, limit: int) -> list[Released]:
        """The newest versions, oldest first."""
        rows = self._rows(
            "SELECT version, released_at, score, weights, length(delta), to_version FROM version"
            " LEFT JOIN turn_back USING (task, version) WHERE task = ? ORDER BY version DESC LIMIT ?",
            (task, limit),
        )
        return [
            Released(version, at, score, len(_weights(weights)), size, to_version)
            for version, at, score, weights, size, to_version in reversed(rows)
        ]

    def weights_lately(self, task: str, limit: int) -> dict[str, float]:
        """Node -> its weights in the newest versions' steps, added up."""
        rows = self._rows("SELECT weights FROM version WHERE task = ? ORDER BY version DESC LIMIT ?", (task, limit))
        found: dict[str, float] = {}
        for (weights,) in rows:
            for node, weight in _weights(weights).items():
                found[node] = found.get(node, 0.0) + weight
        return found

    # -- compaction ----------------------------------------------------------------------------------------------

    def floor(self, task: str) -> Place:
        """The oldest place from which the log is whole: the first one, or that of a checkpoint."""
        row = self._row("SELECT version, contribution FROM compaction WHERE task = ?", (task,))
        return Place(*row) if row else Place()

    def oldest_base(self, task: str) -> int:
        """The oldest version from which all deltas are kept."""
        row = self._row("SELECT deltas_from FROM compaction WHERE task = ?", (task,))
        return int(row[0]) if row else 0

    def raise_floor(self, task: str, place: Place, deltas_from: int) -> None:
        """Gives up what lies before the checkpoint at a place, except the deltas behind a version."""
        self._db.execute(
            "INSERT OR REPLACE INTO compaction VALUES (?, ?, ?, ?)",
            (task, place.version, place.contribution, deltas_from),
        )
        self._db.execute("DELETE FROM checkpoint WHERE task = ? AND version < ?", (task, place.version))

    def drop_updates(self, task: str, after: int, limit: int) -> int | None:
        """Drops updates before the floor, from a place in the log on; gives the place of the last, None for none."""
        return self._drop(
            "SELECT id FROM contribution WHERE task = ? AND id > ? AND id <= ? AND body NOT NULL ORDER BY id LIMIT ?",
            "UPDATE contribution SET body = NULL WHERE id = ?",
            (task, after, self.floor(task).contribution, limit),
        )

    def drop_deltas(self, task: str, after: int, limit: int) -> int | None:
        """Drops the deltas that are given up, from a version on; gives the version of the last, None for none."""
        return self._drop(
            "SELECT version FROM version WHERE task = ? AND version > ? AND version <= ? AND length(delta)"
            " ORDER BY version LIMIT ?",
            "UPDATE version SET delta = x'', weights = x'7b7d' WHERE version = ?",
            (task, after, self.oldest_base(task), limit),
        )

    def _drop(self, find: str, drop: str, values: tuple[object, ...]) -> int | None:
        found = self._rows(find, values)
        self._db.executemany(drop, found)
        return int(found[-1][0]) if found else None

    def used_bytes(self) -> int:
        """What the file holds, pages that are free left out."""
        [(pages,)], [(free,)] = self._rows("PRAGMA page_count"), self._rows("PRAGMA freelist_count")
        [(page_bytes,)] = self._rows("PRAGMA page_size")
        return int((pages - free) * page_bytes)

    def shrink(self, pages: int) -> None:
        """Gives free pages back to the disk. Not within a transaction."""
        self._script(f"PRAGMA incremental_vacuum({pages})")


def _weights(column: bytes) -> dict[str, float]:
    return msgspec.json.decode(column, type=dict[str, float])
