"""Two aggregators of one federation: only one is at work, whatever happens, and the other one says why it is not."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.lease.claim import Tenure, outranks, term_to_take
from fieldfold.control.client import ControlClient
from fieldfold.errors import LeaseError
from fieldfold.wire.messages import AggregatorPresence, Lease
from fieldfold.wire.topics import Topics
from tests.aggregator.process import Aggregator
from tests.aggregator.tiny import FEDERATION, chunks, update
from tests.identities import credential
from tests.link.brokers import PlainMosquitto, plain_link, until

TOPICS = Topics(FEDERATION)

claims = st.builds(
    Lease, ledger=st.sampled_from(["one", "two"]), term=st.integers(1, 3), holder=st.sampled_from(["a", "b", "c"])
)


@given(claims, claims)
def test_of_two_claims_exactly_one_is_the_higher(one: Lease, other: Lease) -> None:
    same = (one.term, one.holder) == (other.term, other.holder)
    assert outranks(one, other) + outranks(other, one) == (not same)


@given(st.none() | claims, st.booleans(), st.integers(0, 3))
def test_whoever_begins_outranks_what_it_found(found: Lease | None, at_work: bool, term: int) -> None:  # noqa: FBT001
    state = "folding" if at_work else "offline"
    presence = None if found is None else AggregatorPresence(state=state, lease=found)
    try:
        taken = term_to_take(presence, "one", term, take_over=False)
    except LeaseError:
        assert at_work
        assert found is not None
        assert found.ledger != "one" or found.term > term
        taken = term_to_take(presence, "one", term, take_over=True)
    assert taken > term
    assert found is None or outranks(Lease(ledger="one", term=taken, holder=""), found)


def test_it_is_sure_only_after_each_connection_anew() -> None:
    tenure = Tenure(Lease(ledger="one", term=2, holder="a"))
    assert not tenure.tick(100.0)
    tenure.connected(100.0)
    assert not tenure.tick(100.1)
    assert tenure.heard(AggregatorPresence(state="offline", lease=tenure.lease)), "the will of its former connection"
    assert tenure.tick(100.1)
    tenure.disconnected()
    assert not tenure.is_sure
    tenure.connected(200.0)
    older = Lease(ledger="two", term=1, holder="z")
    assert tenure.heard(AggregatorPresence(state="folding", lease=older)), "a broker that was put back"
    assert tenure.tick(200.0)
    with pytest.raises(LeaseError, match="another aggregator took over"):
        tenure.heard(AggregatorPresence(state="offline", lease=Lease(ledger="two", term=3, holder="z")))


def back_up(aggregator: Aggregator) -> Path:
    copy = aggregator.folder / "copy.sqlite"
    with ControlClient(aggregator.socket) as client:
        client.command("backup", path=str(copy))
    until(copy.exists)
    return copy


def run_of(ledger: Path) -> str:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        return str(database.execute("SELECT id FROM run").fetchone()[0])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PlainMosquitto]:
    made = PlainMosquitto(tmp_path / "broker", "allow_anonymous true\nautosave_interval 1")
    made.start()
    yield made
    made.kill()


def test_a_second_one_does_not_start_and_the_first_one_does_not_even_notice(
    broker: PlainMosquitto, tmp_path: Path
) -> None:
    with Aggregator(tmp_path / "first", broker.url) as first:
        first.is_at_work()
        run = run_of(back_up(first))
        with Aggregator(tmp_path / "second", broker.url) as second:
            second.ends_saying("another aggregator keeps this federation")
            assert "--take-over" in second.log
        node = plain_link(broker.url, "node")
        node.start()
        until(lambda: node.is_up)
        node.publish(TOPICS.key("press-1"), credential("press-1", TOPICS.key("press-1")), retain=True)
        for message in chunks(update("press-1", 1, run=run)):
            node.publish(TOPICS.update("press-1"), message)
        first.has_accepted(1)
        node.stop()
        assert "link down" not in first.log
    assert (first.sequences(), second.sequences()) == ([1], [])


def test_after_kill_9_the_same_ledger_goes_on_at_once_and_another_one_may_begin(
    broker: PlainMosquitto, tmp_path: Path
) -> None:
    with Aggregator(tmp_path / "first", broker.url) as first:
        first.is_at_work()
        os.kill(broker.pid, signal.SIGSTOP)  # so that the broker cannot say that the first one is gone
        first.kill()
        with Aggregator(tmp_path / "first", broker.url) as again:
            os.kill(broker.pid, signal.SIGCONT)
            again.is_at_work()
            assert again.status()["term"] == 2
            again.kill()
    with Aggregator(tmp_path / "other", broker.url) as other:
        other.is_at_work()
        assert other.status()["term"] == 3
        with Aggregator(tmp_path / "first", broker.url) as late:
            late.ends_saying("another aggregator keeps this federation")


@pytest.mark.parametrize("how", ["a copy of the ledger", "--take-over"])
def test_whoever_is_taken_over_ends_instead_of_fighting(broker: PlainMosquitto, tmp_path: Path, how: str) -> None:
    with Aggregator(tmp_path / "first", broker.url) as first:
        first.is_at_work()
        moved = tmp_path / "moved"
        if how == "a copy of the ledger":
            (moved / "state").mkdir(parents=True)
            shutil.copy(back_up(first), moved / "state/ledger.sqlite")
        with Aggregator(moved, broker.url, *(["--take-over"] if how == "--take-over" else [])) as second:
            first.ends_saying("another aggregator took over")
            second.is_at_work()
            assert second.status()["state"] == "folding"


def test_a_broker_that_forgot_everything_is_told_again_whose_the_federation_is(
    broker: PlainMosquitto, tmp_path: Path
) -> None:
    with Aggregator(tmp_path / "first", broker.url) as first:
        first.is_at_work()
        broker.kill()
        for file in (tmp_path / "broker/data").iterdir():
            file.unlink()
        broker.start()
        until(lambda: first.log.count("connected to") == 2)
        first.is_at_work()
        with Aggregator(tmp_path / "second", broker.url) as second:
            second.ends_saying("another aggregator keeps this federation")
        assert first.status()["state"] == "folding"


def test_two_that_were_parted_agree_which_one_ends(broker: PlainMosquitto, tmp_path: Path) -> None:
    """Each has its broker; when they meet, the one that began later knew of the other and outranks it."""
    apart = PlainMosquitto(tmp_path / "apart")
    apart.start()
    with Aggregator(tmp_path / "first", broker.url) as first:
        first.is_at_work()
        folder = tmp_path / "second"
        (folder / "state").mkdir(parents=True)
        shutil.copy(back_up(first), folder / "state/ledger.sqlite")
        with Aggregator(folder, apart.url) as second:
            second.is_at_work()
            apart.stop()
            second.kill()
            with Aggregator(folder, broker.url) as meets:
                first.ends_saying("another aggregator took over")
                meets.is_at_work()
                assert meets.status()["term"] == 3
    apart.kill()
