"""One node against the aggregator: it may spoil what it sends, and neither memory, disk nor log of the others."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest

from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.intake.complaints import EVERY_S, Complaints
from aggregator.reception import FEW_CHUNKS, UNFINISHED_KEPT_S, Reception
from aggregator.verify.update import MAX_NORM, VerifyConfig
from benchmarks.intake_fuzz import campaign, is_broken
from fieldfold.errors import WireError
from fieldfold.wire.messages import MAX_COUNTER
from tests.aggregator.tiny import MAX_UPDATE_BYTES, OTHER_RUN, Plant, check, chunks, update

ROGUE = "rogue"
HONEST = ("press-1", "press-2", "press-3")


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path / "ledger.sqlite", RateCorrectedFedBuff(buffer_size=2))


def climb(plant: Plant, steps: int) -> list[float]:
    """One node sends ever longer deltas, as long as it may; honest ones of length 0.5 come between them."""
    accepted, length = [], 0.5
    for number in range(1, steps + 1):
        sent = update(ROGUE, number, delta=(length, 0.0, 0.0), base_version=plant.model.version)
        answer = plant.send(sent)
        if answer.receipt.decision == "accepted":
            accepted.append(length)
            length *= 50
        if number % 5 == 0:
            for node in HONEST:
                plant.send(update(node, number, delta=(0.5, 0.0, 0.0), base_version=plant.model.version))
        plant.fold()
    return accepted


def test_a_node_does_not_become_what_is_usual_by_sending_often(plant: Plant) -> None:
    for number, node in itertools.product(range(1, 5), HONEST):
        plant.send(update(node, number, delta=(0.5, 0.0, 0.0)))
    plant.fold()
    assert max(climb(plant, 100)) <= VerifyConfig().max_norm


def test_a_node_that_is_alone_cannot_lead_the_model_out_of_float32(plant: Plant) -> None:
    lengths = [0.5 * 50**step for step in range(22) for _ in range(4)]
    accepted = []
    for number, length in enumerate(lengths, start=1):
        sent = update(ROGUE, number, delta=(length, 0.0, 0.0), base_version=plant.model.version)
        accepted += [length] if plant.send(sent).receipt.decision == "accepted" else []
        plant.fold()
    assert MAX_NORM / 50 <= max(accepted) <= MAX_NORM < max(lengths)
    assert np.isfinite(plant.model.exact).all()
    before = plant.digests()
    plant.crash()
    assert plant.digests() == before


def test_what_nobody_finishes_is_given_up_in_memory_and_on_disk(plant: Plant) -> None:
    now_s = 0.0
    reception = Reception(plant.ledger, VerifyConfig(), MAX_UPDATE_BYTES, check, clock=lambda: now_s)
    left, alive = chunks(update(ROGUE, body=bytes(200)), 64), chunks(update("press-1", body=bytes(200)), 64)
    with plant.ledger.transaction():
        reception.take(ROGUE, left[0], plant.model)
        reception.take("press-1", alive[0], plant.model)
        now_s = UNFINISHED_KEPT_S - 1
        reception.take("press-1", alive[1], plant.model)
        now_s = UNFINISHED_KEPT_S
        reception.write()
        reception.expire()
        assert [node for node, _, _ in plant.ledger.chunks()] == ["press-1"] * 2
        assert [reception.take(ROGUE, message, plant.model) for message in left[1:]] == [None] * len(left[1:])
        *_, answer = [reception.take("press-1", message, plant.model) for message in alive[2:]]
    assert answer is not None


def test_what_was_given_up_is_taken_when_it_is_sent_again(plant: Plant) -> None:
    now_s = 0.0
    reception = Reception(plant.ledger, VerifyConfig(), MAX_UPDATE_BYTES, check, clock=lambda: now_s)
    pieces = chunks(update("press-1", body=bytes(200)), 64)
    with plant.ledger.transaction():
        reception.take("press-1", pieces[0], plant.model)
        now_s = 2 * UNFINISHED_KEPT_S
        reception.expire()
        *_, answer = [reception.take("press-1", message, plant.model) for message in pieces]
    assert answer is not None


def test_an_update_in_crumbs_is_refused(plant: Plant) -> None:
    crumbs = chunks(update(body=bytes(FEW_CHUNKS * 3)), 1)
    with pytest.raises(WireError, match=r"chunks of 1 bytes"):
        plant.receive(crumbs[0])
    assert plant.ledger.chunks() == []


def test_the_highest_sequence_number_has_a_receipt_that_can_be_read(plant: Plant) -> None:
    answer = plant.send(update(sequence=MAX_COUNTER))
    assert answer.receipt.next_sequence == MAX_COUNTER


def test_a_flood_of_refusals_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    complaints = Complaints(clock=lambda: now_s)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            complaints.say(ROGUE, "nonsense")
        complaints.say("press-1", "another")
        now_s = EVERY_S
        complaints.say(ROGUE, "nonsense")
    assert caplog.messages == ["nonsense", "another", "nonsense (999 more like it before)"]


def test_a_replay_in_another_run_is_refused_and_answered(plant: Plant) -> None:
    receipt = plant.send(update(ROGUE, run=OTHER_RUN)).receipt
    assert (receipt.decision, receipt.code) == ("rejected", "other_run")


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_messages_break_nothing(seed: int, tmp_path: Path) -> None:
    outcome = campaign(2000, seed, tmp_path)
    assert not is_broken(outcome), outcome
    assert outcome.honest > 0
    assert outcome.versions > 0
    assert outcome.receipts["accepted"] > outcome.honest
