"""A short storm over a small fleet: what `python -m benchmarks.chaos` does for longer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

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
