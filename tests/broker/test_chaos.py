"""A short storm over a small fleet: what `python -m benchmarks.chaos` does for longer."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.chaos.audit import audit
from benchmarks.chaos.plan import SHARES, draw
from benchmarks.chaos.run import storm

NODES = ["gateway-01", "gateway-02", "gateway-03"]


def test_a_plan_can_be_had_again_and_holds_every_kind_of_fault() -> None:
    plan = draw(3, 1000, NODES)
    assert plan == draw(3, 1000, NODES) != draw(4, 1000, NODES)
    assert set(Counter(fault.kind for fault in plan)) == set(SHARES)
    assert {fault.target for fault in plan} == {*NODES, "aggregator", "broker"}


def test_after_a_storm_nothing_is_lost(tmp_path: Path) -> None:
    after = storm(tmp_path / "fleet", seed=3, faults=12, nodes=len(NODES), tell=lambda _: None)
    assert after.broken == []
    assert sum(after.faults.values()) >= 8
    assert after.found.acknowledged > 10

    ledger = tmp_path / "fleet/aggregator/state/ledger.sqlite"
    with closing(sqlite3.connect(ledger, isolation_level=None)) as database:
        database.execute("DELETE FROM contribution WHERE id = (SELECT min(id) FROM contribution WHERE accepted)")
        database.execute(
            "UPDATE contribution SET body = (SELECT body FROM contribution WHERE id = ?2) WHERE id = ?1",
            _two_of_one_node(database),
        )
    found = audit(tmp_path / "fleet", NODES)
    assert (found.lost, found.twice) == (1, 1), "it is seen when it happens"
    assert found.difference


def _two_of_one_node(database: sqlite3.Connection) -> tuple[int, int]:
    """The places in the log of two updates of one gateway."""
    query = "SELECT min(id), max(id) FROM contribution WHERE accepted GROUP BY node HAVING min(id) < max(id)"
    first, second = database.execute(query).fetchone()
    return first, second
