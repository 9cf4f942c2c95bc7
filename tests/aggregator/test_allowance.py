"""A node that floods takes nobody's time but its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.fold.fedbuff import FedBuff
from aggregator.intake.allowance import LEAST_COST, Allowance
from aggregator.reception import Reception
from aggregator.verify.update import VerifyConfig
from fieldfold.errors import WireError
from tests.aggregator.tiny import MAX_UPDATE_BYTES, Plant, check, chunks, update


def allowed(allowance: Allowance, messages: int, at_s: float, node: str = "press-1", num_chunks: int = 1) -> int:
    return sum(allowance.take(node, num_chunks, at_s) for _ in range(messages))


def test_a_minute_s_worth_may_come_at_once_and_comes_back_with_time() -> None:
    allowance = Allowance(per_minute=60)
    assert allowed(allowance, 1000, at_s=0) == 60
    assert allowed(allowance, 1000, at_s=10) == 10
    assert allowed(allowance, 1000, at_s=10_000) == 60


def test_each_node_has_its_own() -> None:
    allowance = Allowance(per_minute=5)
    assert allowed(allowance, 100, at_s=0) == 5
    assert allowed(allowance, 100, at_s=0, node="press-2") == 5


def test_an_update_in_chunks_costs_one_and_a_very_large_one_a_little_more() -> None:
    assert allowed(Allowance(per_minute=10), 1000, at_s=0, num_chunks=8) == 80
    assert allowed(Allowance(per_minute=10), 100_000, at_s=0, num_chunks=60_000) == 10 / LEAST_COST


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 70_000)), max_size=300), st.floats(1, 1000))
def test_nobody_gets_more_than_a_minute_s_worth_and_what_came_back(
    arrivals: list[tuple[float, int]], per_minute: float
) -> None:
    allowance, spent, now_s = Allowance(per_minute), 0.0, 0.0
    for wait_s, num_chunks in arrivals:
        now_s += wait_s
        if allowance.take("press-1", num_chunks, now_s):
            spent += max(LEAST_COST, 1 / num_chunks)
    assert spent <= per_minute * (1 + now_s / 60) + 1e-6


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1))
    yield plant
    plant.ledger.close()


def test_what_is_too_much_is_deferred_and_may_come_again(plant: Plant) -> None:
    now_s = [0.0]
    reception = Reception(
        plant.ledger, VerifyConfig(max_per_minute=2), MAX_UPDATE_BYTES, check, clock=lambda: now_s[0]
    )
    sent = [chunks(update(sequence=sequence))[0] for sequence in (1, 2, 3)]
    with plant.ledger.transaction():
        answers = [reception.take("press-1", message, plant.model) for message in sent]
        decisions = [answer.receipt.decision for answer in answers if answer is not None]
        assert decisions == ["accepted", "accepted", "deferred"]
        deferred = answers[2]
        assert deferred is not None
        assert (deferred.receipt.code, deferred.receipt.sequence, deferred.decision) == ("too_many", 3, None)
        assert "more than 2 updates a minute" in deferred.receipt.reason
        assert plant.ledger.decision("press-1", 3) is None
        now_s[0] = 60.0
        again = reception.take("press-1", sent[2], plant.model)
    assert again is not None
    assert again.receipt.decision == "accepted"


def test_chunks_beyond_it_leave_no_trace(plant: Plant) -> None:
    reception = Reception(plant.ledger, VerifyConfig(max_per_minute=1), MAX_UPDATE_BYTES, check, clock=lambda: 0.0)
    large = msgspec.structs.replace(update(), payload=np.random.default_rng(0).bytes(60_000))
    with plant.ledger.transaction():
        reception.take("press-1", chunks(update(sequence=9))[0], plant.model)
        assert [reception.take("press-1", piece, plant.model) for piece in chunks(large)[:3]] == [None] * 3
    assert plant.ledger.chunks() == []


def test_an_update_that_is_larger_than_the_model_could_make_is_refused(plant: Plant) -> None:
    large = update(body=np.random.default_rng(0).bytes(100_000))
    with pytest.raises(WireError, match="at most 65536 are taken"):
        plant.receive(chunks(large)[0])
