"""What a fleet has to show after a storm, read from what it left on its disks."""

from __future__ import annotations

import collections
import sqlite3
import statistics
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import msgspec

from aggregator.history.audit import verify
from aggregator.ledger.ledger import Ledger
from fieldfold.params import digest
from fieldfold.wire.messages import ClientUpdate, unpack
from node_app.store import Store

SCORES = 30
"""Held-out scores of the newest versions, of which the median counts."""


class Findings(msgspec.Struct, frozen=True):
    """What is wrong is counted; the promise is that all of these are 0, and `difference` is empty.

    Attributes:
        acknowledged: updates that some node holds an `accepted` for.
        lost: of these, how many the ledger does not hold as accepted.
        twice: updates whose content was accepted a second time, under whatever number.
        set_aside: stores of nodes that were given up as damaged.
        other_bits: nodes that hold another model than was released under its number.
        difference: what `verify` says, where a replay gives something else.
        score: median held-out score of the newest versions.
    """

    acknowledged: int
    accepted: int
    versions: int
    runs: int
    lost: int
    twice: int
    set_aside: int
    other_bits: int
    difference: str
    score: float


def audit(folder: Path, nodes: Collection[str]) -> Findings:
    """Reads ledger and stores of a fleet that has ended, below its folder."""
    path = folder / "aggregator/state/ledger.sqlite"
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT node, sequence, body FROM contribution WHERE accepted").fetchall()
        (runs,) = database.execute("SELECT count(*) FROM run").fetchone()
        scores = database.execute(
            "SELECT score FROM version WHERE score NOT NULL ORDER BY version DESC LIMIT ?", (SCORES,)
        ).fetchall()
    accepted = {(node, sequence) for node, sequence, _ in rows}
    contents = collections.Counter((node, unpack(ClientUpdate, body).payload) for node, _, body in rows if body)
    acknowledged = {(name, sequence) for name in nodes for sequence in _acknowledged(_store(folder, name))}
    with closing(Ledger.existing(path)) as ledger:
        task = ledger.tasks()[-1]
        finding = verify(ledger, task, lambda _: None)
        others = sum(not _holds_what_was_released(ledger, task, _store(folder, name)) for name in nodes)
    return Findings(
        acknowledged=len(acknowledged),
        accepted=len(accepted),
        versions=finding.to_version,
        runs=runs,
        lost=len(acknowledged - accepted),
        twice=sum(count - 1 for count in contents.values()),
        set_aside=len(list(folder.glob("*/state/node.sqlite.damaged*"))),
        other_bits=others,
        difference=finding.difference.what if finding.difference else "",
        score=statistics.median(score for (score,) in scores) if scores else float("nan"),
    )


def _store(folder: Path, name: str) -> Path:
    return folder / name / "state" / "node.sqlite"


def _acknowledged(store: Path) -> list[int]:
    """The updates that a node holds an `accepted` for, of the newest thousand."""
    with closing(sqlite3.connect(store)) as database:
        return [number for (number,) in database.execute("SELECT sequence FROM history WHERE accepted")]


def _holds_what_was_released(ledger: Ledger, task: str, path: Path) -> bool:
    with closing(Store(path)) as store:
        held = store.vector("global", task)
    if held is None:
        return True
    released = ledger.version(task, held.version)
    return released is not None and held.run == ledger.run(task) and digest(held.values) == released.parameters
