"""A broker in foreign hands against the aggregator: it can hold back what nodes say, and nothing more."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator import service as service_module
from aggregator.fold.fedbuff import FedBuff
from aggregator.lease import claim
from aggregator.records import NodeView
from aggregator.service import Service
from broker_config.certificates import new_authority
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.task.bundle import Bundle
from fieldfold.trust.credentials import credential_of
from fieldfold.trust.signing import Signer
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import Chunk, ClientUpdate, Receipt, Statistics, pack, read, unpack, write
from fieldfold.wire.topics import AGGREGATOR
from tests.aggregator.running import eventually
from tests.aggregator.tiny import TOPICS, bundle, chunks, config, update
from tests.attacks.between import HostileBroker
from tests.attacks.strangers import certificate
from tests.identities import credential, link_config, parties, signer

VICTIM, OTHER = "press-1", "press-2"
UPDATE = TOPICS.update(VICTIM)
MALLORY = Signer(Ed25519PrivateKey.generate())
SUMS = FeatureSums((4.0, 4.0), (10.0, 20.0), (30.0, 120.0))


class Plant:
    """An aggregator behind the broker, and two nodes before it that say what a test lets them say."""

    def __init__(self, folder: Path, broker: HostileBroker) -> None:
        settings = config(FedBuff(buffer_size=1))
        there = link_config(AGGREGATOR, broker.url_for_aggregator)
        self._settings, self._folder = msgspec.structs.replace(settings, broker=there), folder
        self.broker = broker
        self.start()
        for node in (VICTIM, OTHER):
            self.shows(node, credential(node, TOPICS.key(node)))

    def start(self) -> None:
        self._refused = 0
        runs = (f"{run:016x}" for run in itertools.count(1))
        begun = threading.Event()

        def run() -> None:
            self.service = Service(self._settings, self._folder, draw_run_id=runs.__next__)
            begun.set()
            self.service.run()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert begun.wait(10)
        eventually(lambda: self.service.status().term)

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(10)

    def publish(self, task: Bundle) -> None:
        self.service._desk.ask(lambda: self.service._federation.set_task(task))
        state = "folding" if task.manifest.data.normalisation == "none" else "waiting for statistics"
        eventually(lambda: self.service.status().state == state)

    def shows(self, node: str, shown: bytes) -> None:
        self.broker.tells_aggregator(TOPICS.key(node), shown)

    def view(self, node: str = VICTIM) -> NodeView | None:
        return next((each for each in self.service.status().nodes if each.node == node), None)

    def refuses(self, *words: str, node: str = VICTIM) -> None:
        """Waits until it says why it takes something of a node not, and that it has taken nothing."""
        self._refused += 1
        eventually(
            lambda: (
                self.service.status().malformed >= self._refused
                and all(word in getattr(self.view(node), "last_reason", "") for word in words)
            ),
            str(words),
        )
        assert self.service.status().accepted == 0
        assert not self.service.status().version

    def says(self, *pieces: bytes, topic: str = UPDATE) -> None:
        for piece in pieces:
            self.broker.tells_aggregator(topic, piece)

    def has_accepted(self, count: int) -> None:
        eventually(lambda: self.service.status().accepted == count, f"{count} accepted updates")

    def receipts(self, count: int, node: str = VICTIM) -> list[Receipt]:
        return [read(Receipt, each) for each in self.broker.said(TOPICS.receipt(node), count)]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    monkeypatch.setattr(service_module, "TICK_S", 0.05)
    monkeypatch.setattr(claim, "LOOK_S", 0.05)
    with HostileBroker(tmp_path / "broker") as broker:
        made = Plant(tmp_path, broker)
        made.publish(bundle("raw", "none"))
        yield made
        made.stop()


def test_an_update_is_taken_where_the_broker_does_its_work(plant: Plant) -> None:
    plant.says(*chunks(update()))
    plant.has_accepted(1)


def test_an_update_that_nobody_signed(plant: Plant) -> None:
    plant.says(*cut(pack(update()), 4096))
    plant.refuses("is not signed", "nothing that is not signed is taken")


def test_an_update_that_the_broker_forged(plant: Plant) -> None:
    body = pack(update())
    plant.says(*cut(body, 4096, MALLORY.seal(UPDATE, object_digest(body))))
    plant.refuses("signed with the key", "press-1's is")


def test_an_update_that_another_node_signed(plant: Plant) -> None:
    plant.says(*chunks(update(), sender=OTHER))
    plant.refuses("signed with the key", "press-1's is")


def resealed(change: Callable[[ClientUpdate], ClientUpdate]) -> list[bytes]:
    """The victim's update with something changed, in sound chunks, under the seal of what it was."""
    sent = update()
    return list(cut(pack(change(sent)), 4096, signer(VICTIM).seal(UPDATE, object_digest(pack(sent)))))


FIELDS: list[dict[str, Any]] = [
    {"num_examples": 1_000_000},
    {"base_version": 1},
    {"sequence": 2},
    {"train_loss": 0.1},
    {"trained_norm": 0.0},
    {"run": bytes(8)},
    {"node": OTHER},
    {"num_steps": 1},
    {"base_score": (0.0, 1)},
    {"base_loss": 0.0},
    {"class_scores": ((0.0, 1),)},
    {"payload": update(delta=(9.0, 9.0, 9.0)).payload},
]


def test_a_field_that_was_altered(plant: Plant) -> None:
    for field in FIELDS:
        plant.says(*resealed(partial(msgspec.structs.replace, **field)))
        plant.refuses("it is not what press-1 has signed", "look at who may write to the broker")
    assert {name for field in FIELDS for name in field} == {*ClientUpdate.__struct_fields__} - {"format"}


def test_a_byte_that_was_altered_on_its_way(plant: Plant) -> None:
    [message] = chunks(update())
    chunk = unpack(Chunk, message)
    plant.says(pack(msgspec.structs.replace(chunk, data=chunk.data[:-1] + bytes([chunk.data[-1] ^ 1]))))
    plant.refuses("does not have the digest that its chunks bear")


def test_a_seal_that_was_altered(plant: Plant) -> None:
    [message] = chunks(update())
    chunk = unpack(Chunk, message)
    for place in (0, 7, 8, 40, 71):
        seal = bytearray(chunk.seal)
        seal[place] ^= 1
        plant.says(pack(msgspec.structs.replace(chunk, seal=bytes(seal))))
        plant.refuses("signed")


def test_the_updates_of_two_nodes_exchanged(plant: Plant) -> None:
    plant.says(*chunks(update(OTHER)), topic=UPDATE)
    plant.says(*chunks(update(VICTIM)), topic=TOPICS.update(OTHER))
    plant.refuses("signed with the key")
    plant.refuses("signed with the key", node=OTHER)


def test_the_pieces_of_two_updates_mixed(plant: Plant) -> None:
    first, second = (chunks(update(sequence=sequence), 40) for sequence in (1, 2))
    mixed = [unpack(Chunk, piece) for piece in first]
    mixed[-1] = msgspec.structs.replace(mixed[-1], data=unpack(Chunk, second[-1]).data)
    mixed[1] = msgspec.structs.replace(mixed[1], data=unpack(Chunk, second[1]).data[::-1])
    plant.says(*map(pack, mixed))
    plant.refuses("does not have the digest")


def test_an_update_of_another_federation(plant: Plant) -> None:
    body = pack(update())
    elsewhere = signer(VICTIM).seal(UPDATE.replace("plant", "other"), object_digest(body))
    plant.says(*cut(body, 4096, elsewhere))
    plant.refuses("it is not what press-1 has signed")


def test_an_update_said_again_counts_once(plant: Plant) -> None:
    pieces = chunks(update())
    plant.says(*pieces)
    plant.has_accepted(1)
    plant.says(*pieces, *pieces)
    first, *again = plant.receipts(3)
    assert [receipt.update for receipt in again] == [first.update] * 2
    assert (plant.service.status().accepted, plant.service.status().version) == (1, 1)


def test_an_update_said_again_after_a_restart_counts_once(plant: Plant) -> None:
    pieces = chunks(update())
    plant.says(*pieces)
    plant.has_accepted(1)
    plant.stop()
    plant.start()
    plant.says(*pieces)
    assert len(plant.receipts(2)) == 2
    assert (plant.service.status().accepted, plant.service.status().version) == (1, 1)


def test_updates_held_back_and_turned_around_only_come_later(plant: Plant) -> None:
    for sequence in (3, 1, 2):
        plant.says(*reversed(chunks(update(sequence=sequence), 40)))
    plant.has_accepted(3)


def test_a_node_whose_key_the_broker_keeps_for_itself(plant: Plant) -> None:
    plant.says(*chunks(update("press-3")), topic=TOPICS.update("press-3"))
    plant.refuses("press-3 has not shown its key yet", node="press-3")


# -- keys --


def of(name: str, key: Signer, *, issuer: Any = None, days_ago: int = 1) -> bytes:
    """A credential as an attacker makes it."""
    pair = certificate(name, issuer, begins=dt.timedelta(days=-days_ago))
    return credential_of([pair.certificate], pair.key, TOPICS.key(VICTIM), key.public_key)


def test_keys_that_no_certificate_of_ours_endorses(plant: Plant) -> None:
    authority = new_authority(dt.datetime.now(dt.UTC))
    for shown in (of(VICTIM, MALLORY), of(VICTIM, MALLORY, issuer=authority)):
        plant.shows(VICTIM, shown)
        plant.refuses("the key is not certified by the authority that is trusted here")
    body = pack(update())
    plant.says(*cut(body, 4096, MALLORY.seal(UPDATE, object_digest(body))))
    plant.refuses("signed with the key")


def test_another_members_key_in_the_place_of_this_ones(plant: Plant) -> None:
    plant.shows(VICTIM, credential(OTHER, TOPICS.key(VICTIM)))
    plant.refuses("the certificate is for 'press-2', not for press-1")


def test_a_members_key_on_the_topic_of_another(plant: Plant) -> None:
    plant.shows(VICTIM, credential(OTHER, TOPICS.key(OTHER)))
    plant.refuses("not certified")


def test_a_replaced_key_is_worth_nothing_and_never_comes_back(plant: Plant) -> None:
    former = credential(VICTIM, TOPICS.key(VICTIM))
    old_pieces = chunks(update())
    parties().take_another_key(VICTIM)
    plant.shows(VICTIM, credential(VICTIM, TOPICS.key(VICTIM)))
    plant.says(*old_pieces)
    plant.refuses("signed with the key")
    plant.shows(VICTIM, former)
    plant.refuses("was replaced by another since")
    plant.says(*chunks(update()))
    plant.has_accepted(1)


# -- statistics --


def statistics(issued: int, total: float = 10.0, key: Signer | None = None) -> bytes:
    topic = TOPICS.statistics(VICTIM)
    said = Statistics(
        issued=issued, task=bundle().digest, count=SUMS.count, total=(total, 20.0), total_of_squares=(3e4, 120.0)
    )
    return (key or signer(VICTIM)).message(topic, write(said))


def test_statistics_that_are_forged_or_said_again(plant: Plant) -> None:
    plant.publish(bundle())
    topic = TOPICS.statistics(VICTIM)
    plant.says(
        write(Statistics(issued=1, task=bundle().digest, count=(), total=(), total_of_squares=())), topic=topic
    )
    plant.refuses("is not signed")
    plant.says(statistics(5, key=MALLORY), topic=topic)
    plant.refuses("signed with the key")
    plant.says(statistics(7), topic=topic)
    eventually(lambda: plant.service.status().statistics_from == 1)
    plant.says(statistics(6, total=1.0), topic=topic)
    plant.refuses("are older than what it has sent")


def test_what_the_aggregator_says_is_not_what_a_node_says(plant: Plant) -> None:
    """Receipts of one node, given back to the aggregator as another's words."""
    plant.says(*chunks(update()))
    plant.has_accepted(1)
    [receipt] = plant.broker.said(TOPICS.receipt(VICTIM))
    plant.says(receipt, topic=TOPICS.statistics(VICTIM))
    eventually(lambda: "signed with the key" in getattr(plant.view(), "last_reason", ""))
    assert plant.service.status().accepted == 1
