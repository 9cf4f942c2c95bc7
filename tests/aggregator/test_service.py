"""The whole aggregator on the in-memory broker: from the task to released versions."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator.config import AggregatorConfig
from aggregator.fold.fedbuff import FedBuff
from fieldfold.codec import decode
from fieldfold.control.client import ControlClient
from fieldfold.errors import BundleError, ControlError
from fieldfold.link.memory import MemoryBroker
from fieldfold.params import as_vector, digest
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.wire.chunks import short
from fieldfold.wire.messages import (
    AggregatorPresence,
    ModelDelta,
    NodePresence,
    TaskManifest,
    unpack,
    write,
)
from tests.aggregator.running import Node, RunningAggregator, Witness, eventually
from tests.aggregator.tiny import FIRST, NUM_PARAMS, OTHER_RUN, RUN, TOPICS, bundle, config, lossless_payload, update

Start = Callable[[AggregatorConfig], RunningAggregator]

DELTA = as_vector([0.1, 0.2, 0.3])
"""Of an update that says nothing else."""
SUMS = FeatureSums((4.0, 4.0), (8.0, -4.0), (20.0, 40.0))
"""Of four rows: means 2 and -1, deviations 1 and 3."""


@pytest.fixture
def nodes(broker: MemoryBroker) -> list[Node]:
    return [Node(broker, f"press-{number}") for number in (1, 2)]


@pytest.fixture
def folding(start: Start, nodes: list[Node]) -> RunningAggregator:
    """An aggregator with a task and version 0 of its model; every two updates make a version."""
    aggregator = start(config())
    aggregator.publish(bundle())
    for node in nodes:
        node.send_statistics(bundle().digest, SUMS)
    aggregator.reaches(0)
    return aggregator


def test_from_the_task_to_the_first_model(start: Start, nodes: list[Node], witness: Witness) -> None:
    aggregator = start(config())
    assert aggregator.status.state == "waiting for a task"

    aggregator.publish(bundle())
    manifest = witness.message(TaskManifest, TOPICS.task_manifest)
    assert manifest.digest == bundle().digest
    assert witness.object(TOPICS.bundle(manifest.digest)) == bundle().data
    assert aggregator.status.state == "waiting for statistics"

    nodes[0].send_statistics(bundle().digest, SUMS)
    eventually(lambda: aggregator.status.statistics_from == 1)
    assert aggregator.status.version is None

    nodes[1].send_statistics(bundle().digest, SUMS)
    model = witness.manifest(0)
    assert (model.run, model.mean, model.std) == (RUN, (2, -1), (1, 3))
    assert (model.deltas_from, model.snapshot) == (0, None), "version 0 is the bundle's own parameters"
    assert model.parameters == digest(FIRST)
    assert aggregator.status.state == "folding"


def test_statistics_of_another_task_or_of_no_data_count_for_nothing(start: Start, nodes: list[Node]) -> None:
    aggregator = start(config())
    aggregator.publish(bundle())
    nodes[0].send_statistics(bundle("other").digest, SUMS)
    nodes[0].send_statistics(bundle().digest, SUMS, total=(1e9, 0.0))
    nodes[1].send_statistics(bundle().digest, SUMS)
    eventually(lambda: aggregator.status.statistics_from == 1)
    assert aggregator.status.version is None


def test_a_task_without_normalisation_waits_for_nobody(start: Start, witness: Witness) -> None:
    start(config()).publish(bundle("raw", "none"))
    model = witness.manifest(0)
    assert (model.mean, model.std) == ((), ())


def test_two_updates_make_a_version_that_every_node_can_follow(
    folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    held = FIRST
    for version in range(1, 8):
        for node, delta in zip(nodes, ((0.5, 0, 0), (0, 1.5, 0)), strict=True):
            node.send(update(node.name, version, delta=delta, base_version=version - 1))
        folding.reaches(version)
        delta_message = unpack(ModelDelta, witness.object(TOPICS.delta(version % 6)))
        assert unpack(ModelDelta, witness.object(f"{TOPICS.root}/model/live")) == delta_message
        assert delta_message.version == version
        held = held + decode(delta_message.payload, NUM_PARAMS)
        assert short(digest(held)) == delta_message.parameters
    np.testing.assert_allclose(folding.exact - FIRST, [7 * 0.25, 7 * 0.75, 0], rtol=1e-5)
    manifest = witness.manifest(7)
    assert manifest.parameters == digest(held)
    assert manifest.snapshot is not None
    assert (manifest.snapshot.version, manifest.deltas_from) == (6, 5), "one delta weighs as much as the model here"
    receipt = witness.receipt("press-1", 7)
    assert (receipt.decision, receipt.staleness, receipt.next_sequence) == ("accepted", 0, 8)
    assert (folding.status.accepted, folding.status.rejected) == (14, 0)
    assert (folding.status.score_median, folding.status.score_worst_decile) == (1.0, 1.0)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "NaN": ({"body": lossless_payload(0, float("nan"), 0)}, "invalid", "not finite"),
    "infinity": ({"body": lossless_payload(0, 0, float("inf"))}, "invalid", "not finite"),
    "too many parameters": ({"delta": (0.0,) * 4}, "invalid", "the model has 3"),
    "no payload": ({"body": b""}, "invalid", "does not decode"),
    "wrong bundle": ({"run": OTHER_RUN}, "other_run", "trained in run"),
    "negative num_examples": ({"num_examples": -5}, "invalid", "num_examples is -5"),
    "absurd num_examples": ({"num_examples": 2**63}, "invalid", "num_examples is 9223372036854775808"),
    "unknown base version": ({"base_version": 3}, "ahead", "unknown base version 3"),
    "base version of 2^53": ({"base_version": 2**53 - 1}, "ahead", "unknown base version"),
    "another node's name": ({"node": "press-2"}, "invalid", "says it is from press-2, but press-1 sent it"),
    "absurd norm": ({"delta": (1e30, 0, 0)}, "invalid", "the delta's norm"),
    "nothing trained": ({"num_steps": 0}, "invalid", "num_steps"),
    "diverged": ({"train_loss": float("inf")}, "invalid", "train_loss"),
}


def test_what_may_not_move_the_model_is_refused_with_a_reason(
    folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    for sequence, (changes, code, reason) in enumerate(REFUSED.values(), start=1):
        nodes[0].send(update(**{"sequence": sequence, **changes}))
        receipt = witness.receipt("press-1", sequence)
        assert (receipt.decision, receipt.code) == ("rejected", code)
        assert reason in receipt.reason
    assert folding.status.version == 0
    assert folding.released.tobytes() == FIRST.tobytes()
    assert folding.status.rejected == len(REFUSED)
    assert folding.status.reasons == {"invalid": len(REFUSED) - 3, "ahead": 2, "other_run": 1}
    [view] = [view for view in folding.status.nodes if view.node == "press-1"]
    assert view.last_reason == receipt.reason

    for node in nodes:
        node.send(update(node.name, 100))
    folding.reaches(1)


def test_nonsense_on_any_topic_is_counted_and_nothing_more(
    folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    nonsense = (b"", b"\x00", b"{}", b"[" * 50_000, b"\x96" * 50_000, b'{"x":' * 9000, b"\xff" * 60_000)
    for payload in nonsense:
        for topic in (TOPICS.update("press-1"), TOPICS.statistics("press-1"), TOPICS.status("press-1")):
            nodes[0].link.publish(topic, payload)
    nodes[0].link.publish("fieldfold/plant/node/NOBODY/update", b"?")
    silent = 1  # an empty status is how a retained one is taken back
    eventually(lambda: folding.status.malformed == 3 * len(nonsense) + 1 - silent)
    for node in nodes:
        node.send(update(node.name))
    assert witness.receipt("press-2", 1).decision == "accepted"
    folding.reaches(1)


def test_an_update_that_comes_again_gets_its_receipt_again_and_moves_nothing(
    folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    for count in range(1, 5):
        nodes[0].send(update())
        assert witness.receipt("press-1", 1, count).decision == "accepted"
    assert folding.status.accepted == 1
    assert folding.status.version == 0


def test_it_goes_on_where_it_was_ended(
    start: Start, folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    for sequence in (1, 2):
        for node in nodes:
            node.send(update(node.name, sequence, base_version=sequence - 1))
        folding.reaches(sequence)
    nodes[0].send(update("press-1", 3, base_version=2))
    witness.receipt("press-1", 3)
    before = folding.released.tobytes()
    folding.stop()

    nodes[0].send(update("press-1", 3, base_version=2))
    again = start(config())
    assert (again.status.version, again.status.accepted) == (2, 5)
    assert again.released.tobytes() == before
    assert witness.receipt("press-1", 3, 2).decision == "accepted"
    nodes[1].send(update("press-2", 3, base_version=2))
    again.reaches(3)
    np.testing.assert_allclose(again.exact, FIRST + 3 * DELTA, rtol=1e-5)


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps its state", "loses its state"])
def test_after_a_broker_s_restart_everything_is_shown_again(
    folding: RunningAggregator, nodes: list[Node], broker: MemoryBroker, *, forgets: bool
) -> None:
    for node in nodes:
        node.send(update(node.name))
    folding.reaches(1)
    broker.stop()
    eventually(lambda: not folding.status.connected)
    if forgets:
        broker._retained.clear()
        broker._sessions.clear()
    broker.start()
    newcomer = Witness(broker, "newcomer")
    assert newcomer.object(TOPICS.bundle(bundle().digest)) == bundle().data
    manifest = newcomer.manifest(1)
    delta = unpack(ModelDelta, newcomer.object(TOPICS.delta(1)))
    held = FIRST + decode(delta.payload, NUM_PARAMS)
    assert digest(held) == manifest.parameters
    assert newcomer.message(AggregatorPresence, TOPICS.aggregator_status).state == "folding"
    for node in nodes:
        node.send(update(node.name, 2))
    folding.reaches(2)


def test_another_task_begins_anew_and_the_former_one_can_come_back(
    folding: RunningAggregator, nodes: list[Node], witness: Witness
) -> None:
    for node in nodes:
        node.send(update(node.name))
    folding.reaches(1)
    folding.publish(bundle("raw", "none"))
    folding.reaches(0)
    assert folding.status.task == "raw"
    nodes[0].send(update("press-1", 2))
    assert witness.receipt("press-1", 2).code == "other_run"
    folding.publish(bundle())
    folding.reaches(1)
    np.testing.assert_allclose(folding.released, FIRST + DELTA, rtol=1e-6)


def test_an_update_before_there_is_a_model(start: Start, nodes: list[Node], witness: Witness) -> None:
    start(config()).publish(bundle())
    nodes[0].send(update())
    assert witness.receipt("press-1", 1).code == "no_model"


def test_presence_is_readable_and_says_goodbye(
    start: Start, folding: RunningAggregator, nodes: list[Node], witness: Witness, broker: MemoryBroker
) -> None:
    nodes[0].link.publish(
        TOPICS.status("press-1"), write(NodePresence(node="press-1", state="training")), retain=True
    )
    eventually(lambda: folding.status.nodes_online == 1)
    broker.drop("aggregator")
    presence = witness.message(AggregatorPresence, TOPICS.aggregator_status, lambda one: one.nodes_online == 1)
    assert (presence.state, presence.version, presence.metric) == ("folding", 0, "rmse")
    folding.stop()
    assert witness.message(AggregatorPresence, TOPICS.aggregator_status, lambda one: one.state == "offline")
    assert start(config()).status.version == 0


def test_released_versions_are_scored_on_held_out_data(
    start: Start, nodes: list[Node], witness: Witness, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 3))
    table = "heat,flow,wear\n" + "\n".join(",".join(map(repr, row.tolist())) for row in rows)
    (tmp_path / "held-out.csv").write_text(table, encoding="utf-8")
    aggregator = start(
        msgspec.structs.replace(config(FedBuff(buffer_size=1)), evaluation=DataConfig(("held-out.csv",)))
    )
    aggregator.publish(bundle("raw", "none"))

    def rmse(parameters: Any) -> float:
        windows = np.stack([rows[start : start + 4] for start in range(37)])
        output = windows[:, :, :2].mean(1) @ parameters[:2] + parameters[2]
        return float(np.sqrt(np.mean((output - windows[:, -1, 2]) ** 2)))

    eventually(lambda: aggregator.status.score_version == 0)
    assert aggregator.status.score == pytest.approx(rmse(FIRST), rel=1e-5)
    nodes[0].send(update(delta=(1, 1, 1)))
    eventually(lambda: aggregator.status.score_version == 1)
    assert aggregator.status.score == pytest.approx(rmse(FIRST + as_vector([1, 1, 1])), rel=1e-5)
    assert witness.manifest(1).score == pytest.approx(aggregator.status.score)


def test_held_out_data_that_cannot_be_read_is_said_and_stops_nothing(
    start: Start, nodes: list[Node], caplog: pytest.LogCaptureFixture
) -> None:
    aggregator = start(
        msgspec.structs.replace(config(FedBuff(buffer_size=1)), evaluation=DataConfig(("none-*.csv",)))
    )
    aggregator.publish(bundle("raw", "none"))
    aggregator.reaches(0)
    nodes[0].send(update())
    aggregator.reaches(1)
    eventually(lambda: "held-out evaluation is off" in caplog.text)
    assert aggregator.status.score is None


def test_the_task_of_the_configuration_is_published_at_the_first_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "wear.bundle").write_bytes(bundle("raw", "none").data)
    aggregator = start(msgspec.structs.replace(config(), task="wear.bundle"))
    aggregator.reaches(0)
    assert aggregator.status.task_digest == bundle("raw", "none").digest


def test_a_task_that_cannot_be_read_ends_the_program_and_leaves_no_socket(start: Start, tmp_path: Path) -> None:
    aggregator = start(msgspec.structs.replace(config(), task="none.bundle"))
    error = eventually(lambda: aggregator.error)
    assert isinstance(error, BundleError)
    eventually(lambda: not (tmp_path / "control.sock").exists())
    aggregator.error = None


def test_status_and_commands_over_the_control_socket(start: Start, tmp_path: Path) -> None:
    aggregator = start(config())
    with ControlClient(tmp_path / "control.sock", timeout_s=10) as client:
        assert client.status()["state"] == "waiting for a task"
        data = bundle("raw", "none").data
        answer = client.command("publish_task", bundle=base64.b64encode(data).decode())
        digest = bundle("raw", "none").digest
        assert answer == {"task": "raw", "digest": digest, "model": "begins now", "online": 0}
        aggregator.reaches(0)
        assert client.status()["version"] == 0
        for damaged in ("not base64!", "ä", base64.b64encode(data[:-1]).decode()):
            with pytest.raises(ControlError, match="bundle"):
                client.command("publish_task", bundle=damaged)
        assert client.status()["task"] == "raw"
