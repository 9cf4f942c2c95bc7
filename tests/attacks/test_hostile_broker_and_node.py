"""A broker in foreign hands against a node: it can hold back what the aggregator says, and nothing more."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker_config.certificates import KeyPair, issue_identity, new_authority
from fieldfold.link.mqtt import MqttLink
from fieldfold.params import digest
from fieldfold.task.bundle import Bundle
from fieldfold.trust.credentials import credential_of
from fieldfold.trust.signing import Signer
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import Chunk, Command, ModelDelta, ModelManifest, Receipt, pack, read, unpack, write
from fieldfold.wire.sealed import without_seal
from fieldfold.wire.topics import AGGREGATOR
from node_app import daemon as daemon_module
from node_app.config import NodeConfig, TrainingConfig
from node_app.daemon import Daemon
from node_app.follow import Follower
from tests.attacks.between import TOPICS, HostileBroker, drop, exchange
from tests.identities import credential, link_config, parties, signer
from tests.link.brokers import cut as cut_off
from tests.link.brokers import plain_link
from tests.node_app.beside import NODE, Beside
from tests.node_app.running import joined, until
from tests.node_app.turbofan import data_of, turbofan

MALLORY = Signer(Ed25519PrivateKey.generate())
COMMAND, RECEIPT, MANIFEST = TOPICS.command(NODE), TOPICS.receipt(NODE), TOPICS.model_manifest
FAST: dict[str, float] = {"messages_per_s": 1e5, "bytes_per_s": 1e9}


class Gateway:
    """A node before the broker, the aggregator's words behind it, and the broker between them."""

    def __init__(self, folder: Path, broker: HostileBroker, log: pytest.LogCaptureFixture) -> None:
        self._folder, self.broker, self._log = folder, broker, log
        self.link = plain_link(broker.url_for_aggregator, "aggregator", messages_per_s=1e5, bytes_per_s=1e9)
        self.beside = Beside(self.link)
        self.bundle: Bundle = turbofan()

    @contextmanager
    def runs(self, *, trains: bool = False) -> Iterator[Daemon]:
        """The daemon; twice in a test is the same node again."""
        config = NodeConfig(
            name=NODE,
            federation="plant",
            broker=link_config(NODE, self.broker.url_for_nodes, **FAST),
            data=data_of(3),
            state_dir="state",
            control_socket="node.sock",
            training=TrainingConfig(enabled=trains, wait_for_version_s=600),
        )
        daemon = Daemon(config, self._folder)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            thread.join(10)

    def refuses(self, *words: str) -> None:
        """Waits until the log has a line with all of these in it, and forgets it."""

        def found() -> bool:
            return any(all(word in line for word in words) for line in list(self._log.messages))

        self.beside.until(found, f"{words} in {self._log.messages}")
        self._log.clear()

    def looks_again(self, daemon: Daemon) -> None:
        """The node reads the manifest, as after each connection."""
        assert isinstance(daemon._link, MqttLink)
        cut_off(daemon._link)


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Gateway]:
    monkeypatch.setattr(daemon_module, "TICK_S", 0.05)
    monkeypatch.setattr("node_app.download.FETCH_PATIENCE_S", 0.5)
    monkeypatch.setattr("fieldfold.link.reconnect.FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr("node_app.download.GAP_PATIENCE_S", 0.2)
    with HostileBroker(tmp_path / "broker") as broker, caplog.at_level(logging.INFO):
        made = Gateway(tmp_path, broker, caplog)
        yield made
        made.link.stop()


def is_paused(daemon: Daemon) -> bool:
    return daemon._learner.progress.state == "paused"


def follower_of(daemon: Daemon) -> Follower:
    assert daemon._download.follower is not None
    return daemon._download.follower


def at(daemon: Daemon, version: int) -> None:
    until(daemon, lambda status: status.version == version)


# -- commands --


def command(what: str, issued: int, key: Signer, topic: str = COMMAND) -> bytes:
    said = Command(issued=issued, command="pause" if what == "pause" else "resume")
    return key.message(topic, write(said))


def test_commands_that_are_forged_altered_or_meant_for_another_node(gateway: Gateway) -> None:
    ours, highest = gateway.beside.signer, 1 << 50
    with gateway.runs(trains=True) as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        gateway.broker.tells_nodes(COMMAND, write(Command(issued=highest, command="pause")))
        gateway.refuses(COMMAND, "is not signed", "nothing that is not signed is taken")
        gateway.broker.tells_nodes(COMMAND, command("pause", highest, MALLORY))
        gateway.refuses(COMMAND, "signed with the key", "but the aggregator's is")
        gateway.broker.tells_nodes(COMMAND, command("pause", highest, ours, TOPICS.command("press-08")))
        gateway.refuses(COMMAND, "it is not what the aggregator has signed")
        with gateway.broker.tampering(exchange("/command", lambda said: said.replace(b"resume", b"pause!"))):
            gateway.beside.command("resume")
            gateway.refuses(COMMAND, "it is not what the aggregator has signed", "look at who may write")
        assert daemon.status().state != "paused"
        gateway.beside.command("pause")
        until(daemon, lambda status: status.state == "paused")


def test_a_command_said_again(gateway: Gateway) -> None:
    with gateway.runs(trains=True) as daemon:
        joined(gateway.beside, gateway.bundle)
        gateway.beside.command("pause")
        until(daemon, lambda status: status.state == "paused")
        gateway.beside.command("resume")
        until(daemon, lambda status: status.state != "paused")
        pause, resume = gateway.broker.said(COMMAND, 2)
        for old in (pause, resume):
            gateway.broker.tells_nodes(COMMAND, old)
            gateway.refuses(COMMAND, "was issued before what this node has seen already")
        assert not is_paused(daemon)
    with gateway.runs() as daemon:
        gateway.broker.tells_nodes(COMMAND, pause)
        gateway.refuses(COMMAND, "the command pause was issued before")
        assert not is_paused(daemon)


# -- receipts --


def test_receipts_that_are_forged_or_of_another_update(gateway: Gateway) -> None:
    with gateway.runs(trains=True) as daemon:
        joined(gateway.beside, gateway.bundle)
        first = gateway.beside.next_update()
        accepted = Receipt(sequence=first[1].sequence, update=first[0], decision="accepted")
        gateway.broker.tells_nodes(RECEIPT, write(accepted))
        gateway.refuses(RECEIPT, "is not signed")
        gateway.broker.tells_nodes(RECEIPT, MALLORY.message(RECEIPT, write(accepted)))
        gateway.refuses(RECEIPT, "signed with the key")
        other = signer(AGGREGATOR).message(TOPICS.receipt("press-08"), write(accepted))
        gateway.broker.tells_nodes(RECEIPT, other)
        gateway.refuses(RECEIPT, "it is not what the aggregator has signed")
        assert (daemon.status().outbox, daemon.status().accepted) == (1, 0)
        gateway.beside.receipt(first)
        until(daemon, lambda status: (status.outbox, status.accepted) == (0, 1))
        gateway.beside.release()
        second = gateway.beside.next_update()
        gateway.broker.tells_nodes(RECEIPT, gateway.broker.said(RECEIPT)[0])
        gateway.beside.receipt(second, code="invalid")
        until(daemon, lambda status: (status.outbox, status.accepted, status.rejected) == (0, 1, 1))


# -- the model --


def test_an_older_model_in_the_place_of_the_newer(gateway: Gateway) -> None:
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        for version in (1, 2, 3):
            gateway.beside.release()
            at(daemon, version)
        gateway.looks_again(daemon)
        until(daemon, lambda _: getattr(follower_of(daemon).manifest, "version", 0) == 3)
        old = next(each for each in gateway.broker.said(MANIFEST) if version_in(each) == 1)
        gateway.broker.tells_nodes(MANIFEST, old)
        gateway.looks_again(daemon)
        gateway.refuses(MANIFEST, "the model manifest of version 1 was issued before", "says old things again")
        status = until(daemon, lambda status: status.state == "needs attention")
        assert "version 1 was issued before" in status.detail
        assert status.version == 3
    with gateway.runs() as again:
        gateway.refuses(MANIFEST, "the model manifest of version 1 was issued before")
        gateway.beside.release()
        until(again, lambda status: (status.version, status.state) == (4, "following"))


def version_in(manifest: bytes) -> int:
    return read(ModelManifest, manifest).version


def test_an_older_task_in_the_place_of_the_newer(gateway: Gateway) -> None:
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        [old] = gateway.broker.said(TOPICS.task_manifest)
        gateway.beside.say_task(gateway.bundle)
        gateway.broker.said(TOPICS.task_manifest, 2)
        gateway.broker.tells_nodes(TOPICS.task_manifest, old)
        gateway.refuses(TOPICS.task_manifest, f"the task {gateway.bundle.digest[:16]} was issued before")


def test_a_run_of_the_past_brought_back(gateway: Gateway) -> None:
    """The aggregator began anew; the manifest of the run before is signed, and old."""
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        for _ in range(3):
            gateway.beside.release()
        at(daemon, 3)
        gateway.broker.said(MANIFEST, 4)
        old = gateway.broker.said(MANIFEST)[-1]
        gateway.beside.begin(gateway.bundle, gateway.beside.statistics[-1], run="00000000000000bb")
        gateway.looks_again(daemon)
        at(daemon, 0)
        gateway.broker.tells_nodes(MANIFEST, old)
        gateway.looks_again(daemon)
        gateway.refuses(MANIFEST, "the model manifest of version 3 was issued before")
        assert daemon.status().version == 0


def test_a_manifest_that_was_altered_or_forged(gateway: Gateway) -> None:
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        with gateway.broker.tampering(exchange(MANIFEST, lambda said: said.replace(b'"version":1', b'"version":9'))):
            gateway.beside.release()
            gateway.broker.said(MANIFEST, 2)
            gateway.looks_again(daemon)
            gateway.refuses(MANIFEST, "it is not what the aggregator has signed")
        said = without_seal(gateway.broker.said(MANIFEST)[-1])[0]
        gateway.broker.tells_nodes(MANIFEST, MALLORY.message(MANIFEST, said))
        gateway.refuses(MANIFEST, "signed with the key")
        gateway.broker.tells_nodes(MANIFEST, gateway.broker.said(TOPICS.task_manifest)[-1])
        gateway.refuses(MANIFEST, "it is not what the aggregator has signed")


def altered(message: bytes, key: Signer | None = None) -> bytes:
    """A delta that leads elsewhere, in a sound chunk; under the seal of what it was, or of somebody else."""
    chunk = unpack(Chunk, message)
    delta = unpack(ModelDelta, chunk.data)
    body = pack(msgspec.structs.replace(delta, parameters=bytes(8)))
    seal = key.seal(TOPICS.deltas, object_digest(body)) if key else chunk.seal
    (piece,) = cut(body, 1 << 20, seal)
    return piece


@pytest.mark.parametrize("key", [None, MALLORY], ids=["altered", "forged"])
def test_a_delta_that_was_altered_or_forged(gateway: Gateway, key: Signer | None) -> None:
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        with gateway.broker.tampering(exchange("/model/live/", lambda said: altered(said, key))):
            gateway.beside.release()
            gateway.refuses(TOPICS.deltas, "signed")
        at(daemon, 1)  # from the slot, which was let through
        model = follower_of(daemon).model
        assert model is not None
        assert digest(model.parameters) == read(ModelManifest, gateway.broker.said(MANIFEST)[-1]).parameters


def test_a_snapshot_and_a_bundle_that_were_altered(gateway: Gateway) -> None:
    def spoilt(said: bytes) -> bytes:
        chunk = unpack(Chunk, said)
        return pack(msgspec.structs.replace(chunk, data=chunk.data[:-1] + bytes([chunk.data[-1] ^ 1])))

    with gateway.runs() as daemon:
        with gateway.broker.tampering(exchange("/task/bundle/", spoilt)):
            gateway.beside.say_task(gateway.bundle)
            gateway.refuses("does not have the digest that its chunks bear")
        assert daemon.status().task == ""
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        with gateway.broker.tampering(
            lambda topic, said: (
                [(topic, spoilt(said) if "/snapshot/" in topic and said else said)]
                if "/live/" not in topic and "/delta/" not in topic
                else []
            )
        ):
            for _ in range(5):
                gateway.beside.release()
            gateway.refuses("does not have the digest that its chunks bear")
        assert daemon.status().version == 0


def test_releases_held_back_and_turned_around_only_come_later(gateway: Gateway) -> None:
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        with gateway.broker.tampering(drop("/model/")):
            for _ in range(4):
                gateway.beside.release()
            gateway.broker.said(MANIFEST, 5)
        live = [(topic, payload) for topic, payload in gateway.broker.heard if "/model/live/" in topic]
        assert daemon.status().version == 0
        for topic, payload in reversed(live):
            gateway.broker.tells_nodes(topic, payload)
        at(daemon, 4)


# -- the aggregator's key --


def shown(pair: KeyPair, key: Signer = MALLORY) -> bytes:
    return credential_of([pair.certificate], pair.key, TOPICS.aggregator_key, key.public_key)


def test_keys_in_the_place_of_the_aggregators(gateway: Gateway) -> None:
    now, topic = dt.datetime.now(dt.UTC), TOPICS.aggregator_key
    ours = parties().authority
    with gateway.runs() as daemon:
        joined(gateway.beside, gateway.bundle)
        at(daemon, 0)
        gateway.broker.tells_nodes(topic, shown(issue_identity(new_authority(now), AGGREGATOR, now)))
        gateway.refuses(topic, "not certified by the authority that is trusted here")
        gateway.broker.tells_nodes(topic, shown(issue_identity(ours, "press-08", now)))
        gateway.refuses(topic, "the certificate is for 'press-08', not for aggregator")
        gateway.broker.tells_nodes(topic, shown(issue_identity(ours, AGGREGATOR, now)))
        gateway.refuses(topic, "a key that is not pinned here")
        gateway.broker.tells_nodes(COMMAND, command("pause", 1 << 50, MALLORY))
        gateway.refuses(COMMAND, "signed with the key")
        assert not is_paused(daemon)


def test_the_aggregators_key_is_replaced_and_the_former_one_never_comes_back(gateway: Gateway) -> None:
    topic = TOPICS.aggregator_key
    with gateway.runs(trains=True) as daemon:
        joined(gateway.beside, gateway.bundle)
        former_key, [former] = gateway.beside.signer, gateway.broker.said(topic)
        parties().take_another_key(AGGREGATOR)
        gateway.beside.signer = signer(AGGREGATOR)
        gateway.link.publish(topic, credential(AGGREGATOR, topic), retain=True)
        gateway.beside.say_task(gateway.bundle)
        gateway.beside.say_manifest()
        gateway.beside.command("pause")
        until(daemon, lambda status: status.state == "paused")
        gateway.broker.tells_nodes(topic, former)
        gateway.refuses(topic, "was replaced by another since")
        gateway.broker.tells_nodes(COMMAND, command("resume", 1 << 50, former_key))
        gateway.refuses(COMMAND, "signed with the key")
        assert is_paused(daemon)


def test_without_the_aggregators_key_nothing_is_taken(gateway: Gateway) -> None:
    [key] = gateway.broker.said(TOPICS.aggregator_key)
    gateway.broker.tells_nodes(TOPICS.aggregator_key, b"")
    with gateway.runs() as daemon:
        gateway.beside.say_task(gateway.bundle)
        gateway.refuses(TOPICS.task_manifest, "the aggregator has not shown its key yet")
        assert daemon.status().task == ""
        gateway.link.publish(TOPICS.aggregator_key, key, retain=True)
        until(daemon, lambda status: status.task)
