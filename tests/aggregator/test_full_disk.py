"""A full disk stops intake cleanly, says so, and nothing is lost or folded twice when there is room again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from aggregator import model
from aggregator.config import AggregatorConfig
from aggregator.fold.fedbuff import FedBuff
from fieldfold.control.client import ControlClient
from fieldfold.link.memory import MemoryBroker
from fieldfold.params import as_vector, digest
from fieldfold.wire.messages import AggregatorPresence
from tests.aggregator.running import CLIENT_ID, Node, RunningAggregator, Witness, eventually
from tests.aggregator.tiny import FIRST, TOPICS, bundle, chunks, config, full_disk, update

Start = Callable[[AggregatorConfig], RunningAggregator]
RAW = bundle("raw", "none")
LARGE = 20_000
DELTA = as_vector([0.1, 0.2, 0.3])


@pytest.fixture
def node(broker: MemoryBroker) -> Node:
    return Node(broker, "press-1")


@pytest.fixture
def folding(start: Start) -> RunningAggregator:
    aggregator = start(config(FedBuff(buffer_size=1)))
    aggregator.publish(RAW)
    aggregator.reaches(0)
    return aggregator


def sent(sequence: int, **changes: Any) -> Any:
    return update(sequence=sequence, base_version=sequence - 1, **changes)


def unacknowledged(broker: MemoryBroker) -> int:
    return len(broker._sessions[CLIENT_ID].sent)


@contextmanager
def no_room(aggregator: RunningAggregator) -> Iterator[None]:
    """Nothing can be written any more."""
    disk = full_disk(aggregator.service._ledger)
    aggregator.within(disk.__enter__)
    yield
    aggregator.within(lambda: disk.__exit__(None, None, None))


@contextmanager
def no_room_for(aggregator: RunningAggregator, table: str) -> Iterator[None]:
    """The disk becomes full at this very write."""
    ledger = aggregator.service._ledger
    failing = f"BEFORE INSERT ON {table} BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
    aggregator.within(lambda: ledger._rows(f"CREATE TEMP TRIGGER full {failing}"))
    yield
    aggregator.within(lambda: ledger._rows("DROP TRIGGER full"))


def test_nothing_is_acknowledged_until_it_is_on_disk(
    folding: RunningAggregator, node: Node, broker: MemoryBroker, witness: Witness
) -> None:
    noise = np.random.default_rng(0).bytes(LARGE)
    *pieces, last = chunks(sent(1, body=noise), 5000)
    with no_room(folding):
        node.send_pieces(pieces)
        node.send(sent(2))
        eventually(lambda: folding.status.state == "storage full")
        assert "disk is full" in folding.status.detail
        told = witness.message(AggregatorPresence, TOPICS.aggregator_status, lambda one: one.state == "storage full")
        assert "make room on that disk" in told.detail
        eventually(lambda: unacknowledged(broker) > 4)
        witness.look()
        assert witness.receipts == []
        assert (folding.status.accepted, folding.status.rejected, folding.status.bytes_received) == (0, 0, 0)
    node.send_pieces([last])
    assert witness.receipt("press-1", 1).decision == "rejected"
    assert witness.receipt("press-1", 2).code == "ahead"  # its base was never released
    eventually(lambda: unacknowledged(broker) == 0)
    assert (folding.status.state, folding.status.accepted, folding.status.rejected) == ("folding", 0, 2)
    assert folding.service._ledger is not None
    assert folding.within(folding.service._ledger.chunks) == []


def test_an_update_of_many_chunks_survives_a_disk_that_is_full_in_its_middle(
    folding: RunningAggregator, node: Node, broker: MemoryBroker, witness: Witness
) -> None:
    eventually(lambda: unacknowledged(broker) == 0)
    *pieces, last = chunks(sent(1), 16)
    with no_room_for(folding, "chunk"):
        node.send_pieces(pieces)
        eventually(lambda: folding.status.state == "storage full")
    node.send_pieces([last])
    assert witness.receipt("press-1", 1).decision == "accepted"
    folding.reaches(1)
    assert folding.within(folding.service._ledger.chunks) == []


@pytest.fixture
def checkpoint_at_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PARAMS_BETWEEN_CHECKPOINTS", 3 * model.PARAMS_OF_OVERHEAD)


@pytest.mark.usefixtures("checkpoint_at_the_third")
@pytest.mark.parametrize("table", ["contribution", "version", "checkpoint"])
def test_the_model_is_the_same_wherever_the_disk_became_full(
    folding: RunningAggregator, node: Node, witness: Witness, start: Start, table: str
) -> None:
    """Also between decision and fold: what was accepted is folded once, in its order, when there is room."""
    for sequence in (1, 2):
        node.send(sent(sequence))
        folding.reaches(sequence)
    with no_room_for(folding, table):
        node.send(sent(3))
        eventually(lambda: folding.status.state == "storage full")
        assert folding.status.version == 2
    folding.reaches(3)
    node.send(sent(4))
    folding.reaches(4)
    assert folding.status.accepted == 4
    np.testing.assert_allclose(folding.exact, FIRST + 4 * DELTA, rtol=1e-5)
    assert witness.manifest(4).parameters == digest(folding.released)

    before = folding.exact.tobytes()
    folding.stop()
    assert start(config(FedBuff(buffer_size=1))).exact.tobytes() == before


def test_the_first_model_comes_when_there_is_room(start: Start) -> None:
    aggregator = start(config())
    with no_room_for(aggregator, "checkpoint"):
        aggregator.publish(RAW)
        eventually(lambda: aggregator.status.state == "storage full")
        assert aggregator.status.version is None
    aggregator.reaches(0)
    eventually(lambda: aggregator.status.state == "folding")


def test_messages_that_the_broker_sends_again_are_not_taken_twice(
    folding: RunningAggregator, node: Node, broker: MemoryBroker, witness: Witness
) -> None:
    with no_room_for(folding, "contribution"):
        node.send(sent(1))
        eventually(lambda: folding.status.state == "storage full")
        for _ in range(5):
            broker.drop(CLIENT_ID)
        eventually(lambda: len(folding.service._backlog) <= 1)
    assert witness.receipt("press-1", 1).decision == "accepted"
    folding.reaches(1)
    eventually(lambda: unacknowledged(broker) == 0)
    assert folding.status.accepted == 1


def test_commands_and_status_are_answered_meanwhile(folding: RunningAggregator, node: Node, tmp_path: Any) -> None:
    with no_room_for(folding, "contribution"):
        node.send(sent(1))
        with ControlClient(tmp_path / "control.sock", timeout_s=10) as client:
            eventually(lambda: client.status()["state"] == "storage full")
        assert folding.within(lambda: 7) == 7
    folding.reaches(1)
