"""A short storm over a small fleet: what `python -m benchmarks.chaos` does for hours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos.plan import SHARES, draw

NODES = ["gateway-01", "gateway-02", "gateway-03"]


def test_a_plan_can_be_had_again_and_holds_every_kind_of_fault() -> None:
    plan = draw(3, 1000, NODES)
    assert plan == draw(3, 1000, NODES) != draw(4, 1000, NODES)
    assert set(Counter(fault.kind for fault in plan)) == set(SHARES)
    assert {fault.target for fault in plan} == {*NODES, "aggregator", "broker"}


def test_after_a_storm_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "RUN_FOLDER", tmp_path)
    said: list[str] = []
    result = chaos.run(seed=3, faults=12, nodes=len(NODES), tell=said.append)
    assert result.broken == [], chaos.table(result)
    assert sum(result.faults.values()) >= 8
    assert result.found.acknowledged > 10
