"""What the aggregator knows for certain, as rows. What `transaction` has committed survives a power cut."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from aggregator.ledger.operations import Operations
from aggregator.ledger.records import Decision, Origin, TaskRecord
from aggregator.records import Taken
from fieldfold.wire.messages import ClassScores


class Ledger(Operations):
    """The ledger of one federation; all writes are within a `transaction`."""

    # -- the ledger itself ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Random, drawn when the ledger was made; a backup bears it too."""
        return str(self._fact("name"))

    @property
    def term(self) -> int:
        """The highest term of an aggregator that began with it."""
        return int(self._fact("term"))

    def put_term(self, term: int) -> None:
        """Notes that an aggregator begins."""
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'term'", (str(term),))

    # -- tasks and statistics ------------------------------------------------------------------------------------

    def add_task(self, task: TaskRecord) -> None:
        """Makes `task` the present one; one published before becomes present again."""
        self._db.execute("DELETE FROM task WHERE digest = ?", (task.digest,))
        self._db.execute(
            "INSERT INTO task (digest, name, bundle, published_at) VALUES (?, ?, ?, ?)",
            (task.digest, task.name, task.bundle, time.time()),
        )

    def task(self) -> TaskRecord | None:
        """The present task."""
        row = self._row("SELECT digest, name, bundle FROM task ORDER BY id DESC LIMIT 1")
        return TaskRecord(*row) if row else None

    def tasks(self) -> list[str]:
        """Digests of all tasks whose model was begun, the present one last."""
        rows = self._rows("SELECT digest FROM task WHERE digest IN (SELECT task FROM run) ORDER BY id")
        return [digest for (digest,) in rows]

    def bundle(self, task: str) -> bytes | None:
        """The bundle of a task that was published."""
        row = self._row("SELECT bundle FROM task WHERE digest = ?", (task,))
        return bytes(row[0]) if row else None

    def put_statistics(self, task: str, node: str, sums: bytes, issued: int = 0) -> None:
        """Keeps the newest sums of a node, with its number for them."""
        row = (task, node, sums, issued, time.time())
        self._db.execute("INSERT OR REPLACE INTO statistics VALUES (?, ?, ?, ?, ?)", row)

    def statistics_issued(self, task: str, node: str) -> int:
        """The number of a node's newest sums; 0 where there are none."""
        row = self._row("SELECT issued FROM statistics WHERE task = ? AND node = ?", (task, node))
        return int(row[0]) if row else 0

    def statistics(self, task: str) -> dict[str, bytes]:
        """Node -> its sums, in the order of the names."""
        rows = self._rows("SELECT node, sums FROM statistics WHERE task = ? ORDER BY node", (task,))
        return {node: bytes(sums) for node, sums in rows}

    def put_normalisation(self, task: str, value: bytes, nodes: int) -> None:
        """Fixes the normalisation of a task, once."""
        self._db.execute("INSERT INTO normalisation VALUES (?, ?, ?)", (task, value, nodes))

    def normalisation(self, task: str) -> bytes | None:
        """What was released, or None before that."""
        row = self._row("SELECT value FROM normalisation WHERE task = ?", (task,))
        return bytes(row[0]) if row else None

    def put_run(self, task: str, run: str) -> None:
        """Names the history of a task's model, once."""
        self._db.execute("INSERT INTO run VALUES (?, ?)", (task, run))

    def run(self, task: str) -> str | None:
        """The name of the history of a task's model; None before version 0."""
        row = self._row("SELECT id FROM run WHERE task = ?", (task,))
        return str(row[0]) if row else None

    def put_origin(self, origin: Origin) -> None:
        """Says of which run a run is a branch."""
        self._db.execute(
            "INSERT INTO origin VALUES (?, ?, ?, ?, ?, ?)",
            (
                origin.run,
                origin.task,
                origin.parent,
                origin.version,
                msgspec.json.encode(origin.without).decode(),
                time.time(),
            ),
        )

    def origins(self, task: str) -> list[Origin]:
        """Where the runs of a task branched off, the oldest first; none for a run that began with version 0."""
        rows = self._rows(
            "SELECT run, task, parent, version, without FROM origin WHERE task = ? ORDER BY made_at", (task,)
        )
        return [
            Origin(run, task, parent, version, msgspec.json.decode(without, type=tuple[str, ...]))
            for run, task, parent, version, without in rows
        ]

    # -- pieces and contributions --------------------------------------------------------------------------------

    def put_chunk(self, node: str, digest: bytes, position: int, message: bytes) -> bool:
        """Keeps a piece of an update; False when it is here already."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?)", (node, digest, position, message, time.time())
        )
        return cursor.rowcount == 1

    def chunks(self) -> list[tuple[str, bytes, bytes]]:
        """(node, digest, message) of all pieces, oldest first."""
        rows = self._rows("SELECT node, digest, message FROM chunk ORDER BY received_at, position")
        return [(node, digest, message) for node, digest, message in rows]

    def drop_chunks(self, node: str, digest: bytes) -> None:
        """Forgets the pieces of an update that is whole now, or given up."""
        self._db.execute("DELETE FROM chunk WHERE node = ? AND digest = ?", (node, digest))

    def put_decision(self, decision: Decision) -> int:
        """Writes an update with its decision; returns its place in the log."""
        cursor = self._db.execute(
            "INSERT INTO contribution (task, node, sequence, digest, base_version, num_examples, accepted, code,"
            " reason, hint, staleness, norm, num_params, size_bytes, score, class_scores, body,"
            " received_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                decision.task,
                decision.node,
                decision.sequence,
                decision.digest,
                decision.base_version,
                decision.num_examples,
                decision.accepted,
                decision.code,
                decision.reason,
                decision.hint,
                decision.staleness,
                decision.norm,
                decision.num_params,
                decision.size_bytes,
                decision.score,
                msgspec.msgpack.encode(decision.class_scores) if decision.class_scores else None,
                decision.body,
                time.time(),
            ),
        )
        return int(cursor.lastrowid or 0)

    def copy_contributions(self, source: Ledger, task: str, start: int, without: Collection[str]) -> None:
        """Takes over a task's log from another ledger; behind `start` without that of some nodes. Places stay."""
        for row in source._each("SELECT * FROM contribution WHERE task = ? ORDER BY id", (task,)):
            if row[0] <= start or row[2] not in without:
                self._db.execute("INSERT INTO contribution VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", row)

    def copy_forgotten(self, source: Ledger) -> None:
        """Takes over what is left of the decisions that another ledger does not hold any more."""
        for row in source._each("SELECT * FROM forgotten"):
            self._db.execute("INSERT INTO forgotten VALUES (?,?,?,?,?,?)", row)

    def set_base(self, contribution: int, base_version: int, staleness: int) -> None:
        """Counts the version that an update is against as this ledger's run does."""
        self._db.execute(
            "UPDATE contribution SET base_version = ?, staleness = ? WHERE id = ?",
            (base_version, staleness, contribution),
        )

    def nodes(self, task: str) -> list[str]:
        """Who has contributed to a task."""
        rows = self._rows("SELECT DISTINCT node FROM contribution WHERE task = ? AND accepted ORDER BY node", (task,))
        return [node for (node,) in rows]

    _DECISION = (
        "SELECT task, node, sequence, digest, base_version, num_examples, accepted, size_bytes, code, reason, hint,"
        " staleness, norm, num_params, score, class_scores, body, id FROM contribution "
    )

    def decision(self, node: str, sequence: int) -> Decision | None:
        """What was decided on this update, if anything."""
        row = self._row(self._DECISION + "WHERE node = ? AND sequence = ?", (node, sequence))
        return _decision(row) if row else None

    def accepted_after(self, task: str, contribution: int, fresh: Sequence[Decision] = ()) -> Iterator[Decision]:
        """The accepted contributions of a task behind a place in the log, in order; one body at a time in memory.

        Args:
            task: digest of the bundle.
            contribution: the place.
            fresh: some of them, as they were written; these are not read.
        """
        known = {decision.id: decision for decision in fresh}
        query = "SELECT id FROM contribution WHERE task = ? AND id > ? AND accepted ORDER BY id"
        for (place,) in self._each(query, (task, contribution)):
            yield known.get(place) or _decision(self._rows(self._DECISION + "WHERE id = ?", (place,))[0])

    _TAKEN = (
        "SELECT id, received_at, node, sequence, base_version, staleness, norm, num_examples, size_bytes, accepted,"
        " code, reason, score, class_scores FROM contribution "
    )

    def taken_lately(self, limit: int) -> list[Taken]:
        """The newest decisions, newest first."""
        return _taken(self._rows(self._TAKEN + "ORDER BY id DESC LIMIT ?", (limit,)))

    def taken_of(self, node: str, limit: int) -> list[Taken]:
        """The newest decisions on a node's updates, newest first."""
        return _taken(self._rows(self._TAKEN + "WHERE node = ? ORDER BY sequence DESC LIMIT ?", (node, limit)))

    def rejected_lately(self, limit: int, among: int) -> list[Taken]:
        """The newest rejections, newest first, among so many of the newest decisions."""
        after = self.newest_contribution() - among
        return _taken(
            self._rows(self._TAKEN + "WHERE id > ? AND NOT accepted ORDER BY id DESC LIMIT ?", (after, limit))
        )

    def num_accepted(self, task: str, after: int) -> int:
        """How many these are."""
        [(count,)] = self._rows(
            "SELECT count(*) FROM contribution WHERE task = ? AND id > ? AND accepted", (task, after)
        )
        return int(count)

    def norms_until(self, task: str, contribution: int, limit: int, of_a_node: int) -> tuple[tuple[str, float], ...]:
        """(node, norm) of the accepted contributions up to a place in the log, oldest first.

        Of each node the last `of_a_node`, and of all these the last `limit`.
        """
        rows = self._rows(
            "SELECT node, norm FROM (SELECT id, node, norm, row_number() OVER (PARTITION BY node ORDER BY id DESC)"
            " AS place FROM contribution WHERE task = ? AND id <= ? AND accepted) WHERE place <= ?"
            " ORDER BY id DESC LIMIT ?",
            (task, contribution, of_a_node, limit),
        )
        return tuple(reversed([(node, norm) for node, norm in rows]))

    def next_sequence(self, node: str) -> int:
        """The lowest sequence number above all that were seen from this node."""
        [(highest,)] = self._rows("SELECT max(sequence) FROM contribution WHERE node = ?", (node,))
        return max(highest or 0, self.forgotten_up_to(node)) + 1

    def forgotten_up_to(self, node: str) -> int:
        """The highest sequence number of this node whose decision is not kept any more; 0 for none."""
        row = self._row("SELECT sequence FROM forgotten WHERE node = ?", (node,))
        return int(row[0]) if row else 0

    def forget_decisions(self, up_to: int, limit: int) -> bool:
        """Drops the rows of the oldest contributions and keeps their sums; whether more are left to drop."""
        [(last,)] = self._rows(
            "SELECT max(id) FROM (SELECT id FROM contribution WHERE id <= ? ORDER BY id LIMIT ?)", (up_to, limit)
        )
        if last is None:
            return False
        self._db.execute(
            "INSERT INTO forgotten SELECT node, max(sequence), sum(accepted), sum(1 - accepted), sum(size_bytes),"
            " sum(accepted * num_params) FROM contribution WHERE id <= ? GROUP BY node"
            " ON CONFLICT (node) DO UPDATE SET sequence = max(sequence, excluded.sequence),"
            " accepted = accepted + excluded.accepted, rejected = rejected + excluded.rejected,"
            " size_bytes = size_bytes + excluded.size_bytes, parameters = parameters + excluded.parameters",
            (last,),
        )
        self._db.execute("DELETE FROM contribution WHERE id <= ?", (last,))
        return bool(last < up_to)

    def newest_contribution(self) -> int:
        """The end of the log."""
        [(newest,)] = self._rows("SELECT max(id) FROM contribution")
        return newest or 0

    def counts(self) -> dict[str, tuple[int, int, int, int]]:
        """Node -> (accepted, rejected, bytes of both, parameters in the accepted ones), forgotten ones included."""
        rows = self._rows(
            "SELECT node, sum(accepted), sum(rejected), sum(size_bytes), sum(parameters) FROM"
            " (SELECT node, accepted, rejected, size_bytes, parameters FROM forgotten UNION ALL"
            " SELECT node, accepted, 1 - accepted, size_bytes, accepted * num_params FROM contribution) GROUP BY node"
        )
        return {row[0]: (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows}

    # -- what is published ---------------------------------------------------------------------------------------

    def put_shelf(self, most: Mapping[str, int]) -> None:
        """Notes below which topics something is retained, and in how many chunks at most."""
        self._db.execute("DELETE FROM shelf")
        self._db.executemany("INSERT INTO shelf VALUES (?, ?)", most.items())

    def shelf(self) -> dict[str, int]:
        """What was noted last."""
        return dict(self._rows("SELECT prefix, chunks FROM shelf"))


def _decision(row: tuple[Any, ...]) -> Decision:
    return msgspec.structs.replace(Decision(*row), accepted=bool(row[6]), class_scores=_told(row[15]))


def _taken(rows: list[tuple[Any, ...]]) -> list[Taken]:
    return [msgspec.structs.replace(Taken(*row), accepted=bool(row[9]), class_scores=_told(row[13])) for row in rows]


def _told(class_scores: bytes | None) -> ClassScores:
    return msgspec.msgpack.decode(class_scores, type=ClassScores) if class_scores is not None else ()
