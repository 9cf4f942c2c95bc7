"""A file system without room, a real one: intake stands still and says so, and nothing is lost when there is room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.history.audit import verify
from aggregator.ledger.ledger import Ledger
from fieldfold.link.session import Received
from fieldfold.wire.messages import ModelManifest, Receipt, read
from fieldfold.wire.topics import Topics
from tests.aggregator.process import Aggregator
from tests.aggregator.small_disk import SmallDisk
from tests.aggregator.tiny import FEDERATION, chunks, update
from tests.identities import credential
from tests.link.brokers import PlainMosquitto, plain_link, until

TOPICS = Topics(FEDERATION)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PlainMosquitto]:
    made = PlainMosquitto(tmp_path / "broker", "allow_anonymous true")
    made.start()
    yield made
    made.kill()


class Node:
    """Sends updates and keeps the numbers of those that were accepted."""

    def __init__(self, url: str) -> None:
        self.link = plain_link(url, "press-1")
        for topic in (TOPICS.model_manifest, TOPICS.receipt("press-1")):
            self.link.subscribe(topic)
        self.link.start()
        until(lambda: self.link.is_up)
        self.link.publish(TOPICS.key("press-1"), credential("press-1", TOPICS.key("press-1")), retain=True)
        self._accepted: list[int] = []
        self._run = ""
        until(lambda: not self.accepted and bool(self._run))

    def send(self, sequence: int) -> None:
        for message in chunks(update("press-1", sequence, run=self._run)):
            self.link.publish(TOPICS.update("press-1"), message)

    @property
    def accepted(self) -> list[int]:
        while not self.link.events.empty():
            event = self.link.events.get()
            if isinstance(event, Received) and event.topic == TOPICS.model_manifest:
                self._run = read(ModelManifest, event.payload).run
            elif isinstance(event, Received):
                receipt = read(Receipt, event.payload)
                self._accepted += [receipt.sequence] if receipt.decision == "accepted" else []
        return self._accepted


def test_a_full_file_system_stops_intake_until_there_is_room(broker: PlainMosquitto, tmp_path: Path) -> None:
    with (
        SmallDisk(tmp_path / "disk") as disk,
        Aggregator(tmp_path / "site", broker.url, state=str(disk.folder), within=disk.within) as aggregator,
    ):
        aggregator.is_at_work()
        node = Node(broker.url)
        node.send(1)
        until(lambda: node.accepted == [1])
        disk.fill(aggregator.pid)
        for sequence in (2, 3, 4):
            node.send(sequence)
        until(lambda: aggregator.status()["state"] == "storage full")
        status = aggregator.status()
        assert (status["accepted"], status["version"], node.accepted) == (1, 1, [1])
        if disk.is_real:
            assert "disk is full" in status["detail"]
            assert "make room on that disk" in status["detail"]
        disk.make_room(aggregator.pid)
        until(lambda: node.accepted == [1, 2, 3, 4])
        until(lambda: aggregator.status()["version"] == 4)
        assert aggregator.status()["state"] == "folding"
        node.link.stop()
        aggregator.stop()
        assert aggregator.log.count("intake stands still") == aggregator.log.count("intake goes on") == 1
        ledger = shutil.copyfile(disk.seen / "ledger.sqlite", tmp_path / "ledger.sqlite")
    opened = Ledger.existing(ledger)
    [task] = opened.tasks()
    finding = verify(opened, task, lambda _: None)
    opened.close()
    assert (finding.contributions, finding.to_version, finding.difference) == (4, 4, None)
