"""From message to decision: each update is decided once, whatever happens around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aggregator.fold.fedbuff import FedBuff
from aggregator.reception import Reception
from aggregator.verify.update import VerifyConfig
from fieldfold.errors import WireError
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import pack
from tests.aggregator.tiny import (
    MAX_UPDATE_BYTES,
    NUM_PARAMS,
    OTHER_RUN,
    Plant,
    check,
    chunks,
    lossless_payload,
    update,
)

SMALL = 16


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1))
    yield plant
    plant.ledger.close()


def test_an_accepted_update_is_in_the_ledger_and_named_in_its_receipt(plant: Plant) -> None:
    sent = update()
    answer = plant.send(sent)
    assert answer.receipt.decision == "accepted"
    assert answer.receipt.update == object_digest(pack(sent))
    assert answer.receipt.code is None
    assert (answer.receipt.sequence, answer.receipt.next_sequence) == (1, 2)
    written = plant.ledger.decision("press-1", 1)
    assert written == answer.decision
    assert written is not None
    assert written.body == pack(sent)
    assert written.norm == pytest.approx(np.sqrt(0.14))


def test_a_rejected_update_leaves_its_reason_and_not_its_body(plant: Plant) -> None:
    answer = plant.send(update(body=lossless_payload(0, float("nan"), 0), num_examples=2**64 - 1))
    assert answer.receipt.decision == "rejected"
    assert answer.receipt.code == "invalid"
    assert "num_examples" in answer.receipt.reason
    written = plant.ledger.decision("press-1", 1)
    assert written is not None
    assert (written.accepted, written.body) == (False, None)
    assert written.reason == answer.receipt.reason
    plant.fold()
    assert plant.model.version == 0


def test_a_duplicate_gets_the_same_receipt_and_is_folded_once(plant: Plant) -> None:
    first = plant.send(update())
    again = plant.send(update())
    assert again.receipt == first.receipt
    assert again.decision is None
    plant.fold()
    assert plant.model.version == 1
    late = plant.send(update())
    assert late.decision is None
    assert (late.receipt.decision, late.receipt.staleness) == ("accepted", 0)
    plant.fold()
    assert plant.model.version == 1


def test_a_duplicate_after_a_crash_gets_the_same_receipt(plant: Plant) -> None:
    first = [plant.send(update(sequence=1)), plant.send(update(sequence=2, num_steps=0))]
    plant.crash()
    again = [plant.send(update(sequence=1)), plant.send(update(sequence=2, num_steps=0))]
    assert [one.decision for one in again] == [None, None]
    assert [one.receipt.decision for one in again] == ["accepted", "rejected"]
    assert again[1].receipt.reason == first[1].receipt.reason
    assert plant.model.version == 1


def test_a_sequence_number_that_was_used_for_another_update(plant: Plant) -> None:
    """A node that lost its store begins at 1 again, and learns where to go on."""
    plant.send(update(sequence=4))
    answer = plant.send(update(sequence=4, delta=(9, 9, 9)))
    assert answer.decision is None
    assert answer.receipt.code == "sequence_used"
    assert answer.receipt.update == object_digest(pack(update(sequence=4, delta=(9, 9, 9))))
    assert answer.receipt.next_sequence == 5
    before = plant.ledger.decision("press-1", 4)
    assert before is not None
    assert before.accepted


def test_two_nodes_may_use_the_same_sequence_number(plant: Plant) -> None:
    assert plant.send(update("press-1", 1)).receipt.decision == "accepted"
    assert plant.send(update("press-2", 1)).receipt.decision == "accepted"


def test_another_node_s_name_is_held_against_the_sender(plant: Plant) -> None:
    [message] = chunks(update("press-2"), sender="press-1")
    answer = plant.receive(message, "press-1")
    assert answer is not None
    assert answer.node == "press-1"
    assert answer.receipt.code == "invalid"
    assert plant.ledger.decision("press-2", 1) is None
    assert plant.send(update("press-2")).receipt.decision == "accepted"


def test_before_there_is_a_model(plant: Plant) -> None:
    [message] = chunks(update())
    with plant.ledger.transaction():
        answer = plant.reception.take("press-1", message, None)
    assert answer is not None
    assert answer.receipt.code == "no_model"


def test_pieces_survive_a_crash_between_any_two_of_them(plant: Plant) -> None:
    for sequence, lost in enumerate(range(1, len(chunks(update(), SMALL))), start=1):
        pieces = chunks(update(sequence=sequence), SMALL)
        for piece in pieces[:lost]:
            assert plant.receive(piece) is None
        plant.crash()
        answers = [plant.receive(piece) for piece in pieces[lost:]]
        assert answers[-1] is not None
        assert answers[-1].receipt.decision == "accepted"
        assert plant.ledger.chunks() == []


def test_what_is_whole_within_a_transaction_is_written_once(plant: Plant) -> None:
    *pieces, last = chunks(update(), SMALL)
    with plant.ledger.transaction():
        assert [plant.reception.take("press-1", piece, plant.model) for piece in pieces] == [None] * len(pieces)
        assert plant.ledger.chunks() == []
        assert plant.reception.take("press-1", last, plant.model) is not None
        plant.reception.write()
        assert plant.ledger.chunks() == []


def test_pieces_come_again_without_harm(plant: Plant) -> None:
    pieces = chunks(update(), SMALL)
    for piece in [*pieces[:-1], *pieces[:-1]]:
        assert plant.receive(piece) is None
    assert len(plant.ledger.chunks()) == len(pieces) - 1
    assert plant.receive(pieces[-1]) is not None
    assert plant.ledger.chunks() == []


def test_an_update_that_is_cut_anew_replaces_its_pieces_on_disk(plant: Plant) -> None:
    for piece in chunks(update(), SMALL)[:-1]:
        plant.receive(piece)
    smaller = chunks(update(), SMALL - 8)
    for piece in smaller[:-1]:
        plant.receive(piece)
    assert [message for _, _, message in plant.ledger.chunks()] == smaller[:-1]
    plant.crash()
    assert plant.receive(smaller[-1]) is not None
    assert plant.ledger.chunks() == []


def test_pieces_of_updates_that_are_never_finished_do_not_pile_up(plant: Plant) -> None:
    for sequence in range(1, 30):
        for piece in chunks(update(sequence=sequence), SMALL)[:-1]:
            plant.receive(piece)
    assert len({digest for _, digest, _ in plant.ledger.chunks()}) == 2
    plant.crash()
    assert len({digest for _, digest, _ in plant.ledger.chunks()}) == 2


def test_a_transaction_that_failed_is_taken_again_as_if_it_had_never_been(plant: Plant) -> None:
    pieces = chunks(update(), SMALL)
    for piece in pieces[:2]:
        plant.receive(piece)

    class DiskFullError(Exception):
        pass

    def fail() -> None:
        with plant.ledger.transaction():
            for piece in pieces[2:]:
                plant.reception.take("press-1", piece, plant.model)
            raise DiskFullError

    with pytest.raises(DiskFullError):
        fail()
    with plant.ledger.transaction():
        plant.reception.restore()
        answers = [plant.reception.take("press-1", piece, plant.model) for piece in pieces[2:]]
    assert answers[-1] is not None
    assert answers[-1].decision is not None
    assert plant.ledger.chunks() == []


def test_a_lower_limit_drops_the_pieces_that_lie_on_disk(plant: Plant) -> None:
    large = update(body=np.random.default_rng(0).bytes(5000))
    plant.receive(chunks(large)[0])
    reception = Reception(plant.ledger, VerifyConfig(), 1024, check)
    with plant.ledger.transaction():
        reception.restore()
    assert plant.ledger.chunks() == []


@pytest.mark.parametrize(
    "message", [b"", b"\xff" * 100, chunks(update())[0][:-1], chunks(update(body=bytes(MAX_UPDATE_BYTES)))[0]]
)
def test_what_is_no_update_leaves_no_trace(plant: Plant, message: bytes) -> None:
    with pytest.raises(WireError):
        plant.receive(message)
    assert plant.ledger.chunks() == []
    assert plant.ledger.counts() == {}


def test_a_whole_object_that_is_no_update_takes_its_pieces_along(plant: Plant) -> None:
    broken = pack(update()).replace(b"press-1", b"PRESS-1")
    *first, last = cut(broken, SMALL)
    for piece in first:
        plant.receive(piece)
    with pytest.raises(WireError, match="not a ClientUpdate"):
        plant.receive(last)
    assert plant.ledger.chunks() == []


def test_staleness_is_that_at_the_arrival(plant: Plant) -> None:
    plant.send(update(sequence=1))
    plant.fold()
    answer = plant.send(update(sequence=2, base_version=0))
    assert (answer.receipt.staleness, answer.receipt.version) == (1, 1)


def test_the_reason_names_what_was_wrong(plant: Plant) -> None:
    answers = [
        plant.send(update(sequence=1, delta=(1.0,) * (NUM_PARAMS + 1))),
        plant.send(update(sequence=2, run=OTHER_RUN)),
        plant.send(update(sequence=3, base_version=5)),
        plant.send(update(sequence=4, delta=(1e5, 0, 0))),
    ]
    assert [one.receipt.code for one in answers] == ["invalid", "other_run", "ahead", "invalid"]
    for answer, word in zip(answers, ("parameters", "run", "base version", "norm"), strict=True):
        assert word in answer.receipt.reason
