"""What has come of a bundle or a snapshot outlives a power cut: only the rest is read again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fieldfold.link.memory import MemoryBroker
from fieldfold.link.session import BrokerLimits
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import Chunk, unpack
from node_app import download
from node_app.fetch import Announced, Fetch, Wanted
from node_app.resumption import Resumption
from node_app.store import Store
from tests.node_app.beside import NODE, Beside
from tests.node_app.running import Running, joined, until

BODY = bytes(range(256)) * 5
CHUNK_BYTES = 200
ANNOUNCED = Announced(object_digest(BODY), len(BODY), CHUNK_BYTES)
WANTED = Wanted("snapshot", 7, ANNOUNCED.digest)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "node.sqlite")) as opened:
        yield opened


def chunks() -> list[Chunk]:
    return [unpack(Chunk, message) for message in cut(BODY, CHUNK_BYTES)]


def begun(store: Store, *positions: int) -> Resumption:
    """A fetch of which these chunks have come and are kept."""
    fetch, resumption = Fetch("snapshot/1", ANNOUNCED), Resumption(store.pieces)
    for position in positions:
        fetch.take(chunks()[position])
    resumption.keep({WANTED: fetch})
    return resumption


def test_a_fetch_goes_on_with_what_was_kept(store: Store) -> None:
    begun(store, 0, 1, 4)
    ((wanted, fetch),) = Resumption(store.pieces).restore().items()
    assert wanted == WANTED
    assert fetch.missing(8) == [f"snapshot/1/{index}" for index in (2, 3, 5, 6)]
    assert [fetch.take(chunks()[index]) for index in (2, 3, 5, 6)][-1] == BODY


def test_pieces_are_written_once() -> None:
    fetch = Fetch("snapshot/1", ANNOUNCED)
    fetch.take(chunks()[0])
    assert list(fetch.take_fresh()) == [0]
    fetch.take(chunks()[0])
    fetch.take(chunks()[3])
    assert list(fetch.take_fresh()) == [3]


def test_killed_between_the_last_piece_and_its_use_the_last_is_asked_for_again(store: Store) -> None:
    begun(store, 0, 1, 2)
    of, _ = store.pieces.kept() or (None, {})
    assert of is not None
    store.pieces.keep(of, {chunk.index: chunk.data for chunk in chunks()})
    fetch = Resumption(store.pieces).restore()[WANTED]
    assert fetch.missing(8) == ["snapshot/1/6"]
    assert fetch.take(chunks()[6]) == BODY


def test_pieces_of_one_object_only_are_kept(store: Store) -> None:
    resumption = begun(store, 0, 1)
    newer = Wanted("bundle", 0, object_digest(b"new"))
    fetch = Fetch("task", Announced(newer.digest, 3, 1))
    (first, *_) = cut(b"new", 1)
    fetch.take(unpack(Chunk, first))
    resumption.keep({newer: fetch})
    assert list(resumption.restore()) == [newer]
    assert store._transact(lambda db: db.execute("SELECT * FROM piece").fetchall()) == [(0, b"n")]
    resumption.forget()
    assert resumption.restore() == {}


def test_pieces_that_cannot_be_pieces_of_it_are_of_no_use(store: Store) -> None:
    begun(store, 0, 1)
    store._transact(lambda db: db.execute("UPDATE piece SET data = x'00' WHERE position = 1"))
    assert Resumption(store.pieces).restore() == {}


KEEP_FOR_EVER = """
import sys
from pathlib import Path
from node_app.fetch import Fetch
from node_app.resumption import Resumption
from node_app.store import Store
from tests.node_app.test_resumption import ANNOUNCED, WANTED, chunks
store = Store(Path(sys.argv[1]))
while True:
    fetch = Fetch("snapshot/1", ANNOUNCED)
    for chunk in chunks()[:-1]:
        fetch.take(chunk)
        Resumption(store.pieces).keep({WANTED: fetch})
        print(chunk.index, flush=True)
    store.pieces.forget()
"""


@pytest.mark.parametrize("lines", [4, 15])
def test_after_kill_9_what_was_said_to_be_kept_is_there(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "node.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KEEP_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout]
    process.wait()
    process.stdout.close()
    with closing(Store(path)) as store:
        assert store.notice == ""
        for fetch in Resumption(store.pieces).restore().values():
            present = 6 - len(fetch.missing(8)) + 1
            assert present in {told[-1] + 1, told[-1] + 2, 1}
            assert [fetch.take(chunks()[int(topic.rpartition("/")[2])]) for topic in fetch.missing(8)][-1] == BODY


def test_a_bundle_that_was_half_read_is_read_on_after_a_restart(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    broker.limits = BrokerLimits(message_bytes=4096)
    beside.say_task(bundle)
    prefix = beside.topics.bundle(bundle.digest)
    count = sum(topic.startswith(prefix) for topic in broker._retained)
    late = {f"{prefix}/{index}": broker._retained.pop(f"{prefix}/{index}") for index in range(count - 5, count)}
    with running() as daemon:
        until(daemon, lambda status: status.bytes_down > (count - 6) * 4000)
        until(daemon, lambda status: status.fetching == f"the task: {100 * (count - 5) / count:.0f} %")
    broker._retained.update(late)
    with running() as again:
        status = until(again, lambda status: status.task)
        assert status.bytes_down < 7 * 4096, "the manifest and what was missing"
        assert not status.fetching


def test_a_snapshot_that_was_read_is_not_read_again_after_a_kill(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(enabled=False) as daemon:
        joined(beside, bundle)
        until(daemon, lambda status: status.version == 0)
    for _ in range(5):
        beside.release()
    monkeypatch.setattr("node_app.bench.Bench.keep", lambda *_: None)
    with running(enabled=False) as daemon:
        until(daemon, lambda status: status.version == 5)
    with running(enabled=False) as again:
        status = until(again, lambda status: status.version == 5 and status.newest_version == 5)
        assert status.bytes_down < len(broker._retained[f"{beside.topics.snapshot(1)}/0"]) / 2


def test_on_a_link_slower_than_a_chunk_in_five_seconds_the_patience_grows(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.limits = BrokerLimits(message_bytes=4096)
    beside.say_task(bundle)
    prefix = beside.topics.bundle(bundle.digest)
    late = broker._retained.pop(f"{prefix}/3")
    with running() as daemon:
        monkeypatch.setattr(download, "FETCH_PATIENCE_S", 0.1)
        until(daemon, lambda _: daemon._download._patience_s >= 0.8)
        read = daemon.status().bytes_down
        broker._retained[f"{prefix}/3"] = late
        broker.drop(NODE)
        status = until(daemon, lambda status: status.task)
        assert status.bytes_down - read < 2 * 4096, "nothing that had come was given up"
