"""What people ask of a running aggregator over its socket: carried out, refused with a reason, and written down."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from aggregator import proof as proof_module
from aggregator.cli import aggregator as command
from aggregator.config import AggregatorConfig
from aggregator.ledger.records import Operation
from aggregator.records import Released, Taken
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError
from fieldfold.link.memory import MemoryBroker
from fieldfold.params import as_vector
from fieldfold.wire.messages import Command
from tests.aggregator.running import Node, RunningAggregator, Witness, eventually
from tests.aggregator.tiny import FIRST, RUN, TOPICS, bundle, config, lossless_payload, update

Start = Callable[[AggregatorConfig], RunningAggregator]
ME = pwd.getpwuid(os.geteuid()).pw_name
DELTA = as_vector([0.1, 0.2, 0.3])


@pytest.fixture
def nodes(broker: MemoryBroker) -> list[Node]:
    return [Node(broker, f"press-{number}") for number in (1, 2)]


@pytest.fixture
def running(start: Start) -> RunningAggregator:
    """Folds; every two updates make a version."""
    aggregator = start(config())
    aggregator.publish(bundle("raw", "none"))
    aggregator.reaches(0)
    return aggregator


@pytest.fixture
def client(running: RunningAggregator) -> Iterator[ControlClient]:
    with ControlClient(running.service._control.path) as client:
        yield client


def learn(running: RunningAggregator, nodes: list[Node], sequence: int) -> None:
    """One update of each node, against the newest version."""
    base = running.status.version or 0
    accepted = running.status.accepted
    for node in nodes:
        node.send(
            update(node.name, sequence, base_version=base, run=RUN, body=lossless_payload(*DELTA)),
        )
    eventually(lambda: running.status.accepted == accepted + len(nodes), "the updates")


def operations(client: ControlClient) -> list[tuple[str, str, str]]:
    found = msgspec.convert(client.view("operations"), list[Operation])
    assert all(each.at > 1e9 for each in found)
    return [(each.who, each.command, each.subject) for each in found]


def test_while_it_is_paused_updates_are_taken_and_none_is_folded(
    running: RunningAggregator, nodes: list[Node], client: ControlClient, witness: Witness
) -> None:
    learn(running, nodes, 1)
    running.reaches(1)
    assert client.command("pause") == "the model stays at version 1; updates are taken and wait"
    for sequence in (2, 3):
        learn(running, nodes, sequence)
        assert witness.receipt("press-1", sequence).decision == "accepted"
    assert (running.status.state, running.status.version) == ("paused", 1)
    assert client.command("resume") == "goes on with 4 updates that waited"
    running.reaches(3)
    assert running.status.state == "folding"
    assert operations(client) == [(ME, "resume", ""), (ME, "pause", "")]


def test_a_pause_outlives_a_restart(start: Start, nodes: list[Node], running: RunningAggregator) -> None:
    with ControlClient(running.service._control.path) as client:
        client.command("pause")
    learn(running, nodes, 1)
    running.stop()
    again = start(config())
    assert (again.status.state, again.status.version) == ("paused", 0)
    with ControlClient(again.service._control.path) as another:
        another.command("resume")
    again.reaches(1)


def test_releasing_by_hand_while_it_is_paused(
    start: Start, running: RunningAggregator, nodes: list[Node], client: ControlClient
) -> None:
    with pytest.raises(ControlError, match="each version is released when it comes; pause first"):
        client.command("release")
    client.command("pause")
    learn(running, nodes, 1)
    assert client.command("release") == "version 1 out of 2 updates that waited"
    assert (running.status.state, running.status.version) == ("paused", 1)
    learn(running, nodes, 2)
    assert operations(client)[0] == (ME, "release", "version 1")
    running.stop()
    assert start(config()).status.version == 1, "held where it was released"


def test_rolling_back_and_going_on(
    running: RunningAggregator, nodes: list[Node], client: ControlClient, witness: Witness
) -> None:
    for sequence in (1, 2, 3):
        learn(running, nodes, sequence)
        running.reaches(sequence)
    assert client.command("roll_back", version=0) == "version 4 is version 0 again"
    assert witness.manifest(4).run == RUN, "no gateway begins anew"
    np.testing.assert_allclose(running.released, FIRST, rtol=1e-6)
    nodes[0].send(update("press-1", 4, base_version=3, run=RUN, body=lossless_payload(*DELTA)))
    assert witness.receipt("press-1", 4).code == "stale"
    learn(running, nodes, 5)
    running.reaches(5)
    np.testing.assert_allclose(running.released, FIRST + DELTA, rtol=1e-5)
    for version in (9, 5):
        with pytest.raises(ControlError, match="name an older one"):
            client.command("roll_back", version=version)
    with pytest.raises(ControlError, match="version: Expected"):
        client.command("roll_back", version="1; DROP TABLE version")
    shown = msgspec.convert(client.view("versions"), list[Released])
    assert [(each.version, each.to_version, each.nodes) for each in shown[-2:]] == [(4, 0, 0), (5, None, 2)]


def test_an_excluded_node_is_told_so_until_it_is_readmitted(
    start: Start, running: RunningAggregator, nodes: list[Node], client: ControlClient, witness: Witness
) -> None:
    with pytest.raises(ControlError, match="press-1: no such node was ever heard"):
        client.command("exclude", node="press-1")
    learn(running, nodes, 1)
    assert client.command("exclude", node="press-1") == "nothing of press-1 is taken any more"
    assert client.command("exclude", node="press-1") == "press-1 is excluded already"
    nodes[0].send(update("press-1", 2, base_version=1, run=RUN))
    receipt = witness.receipt("press-1", 2)
    assert (receipt.code, receipt.reason) == ("excluded", f"press-1 is excluded, by {ME}")
    assert {each.node: each.excluded_by for each in running.status.nodes} == {"press-1": ME, "press-2": ""}
    running.stop()

    again = start(config())
    nodes[0].send(update("press-1", 3, base_version=1, run=RUN))
    assert witness.receipt("press-1", 3).code == "excluded"
    with ControlClient(again.service._control.path) as another:
        assert another.command("readmit", node="press-1") == "press-1 counts again"
        nodes[0].send(update("press-1", 4, base_version=1, run=RUN))
        assert witness.receipt("press-1", 4).decision == "accepted"
        assert operations(another) == [(ME, "readmit", "press-1"), (ME, "exclude", "press-1")]
        rejections = msgspec.convert(another.view("rejections"), list[Taken])
        assert [(each.node, each.sequence, each.code) for each in rejections] == [
            ("press-1", 3, "excluded"),
            ("press-1", 2, "excluded"),
        ]


def test_one_node_is_asked_to_pause_over_the_broker(
    running: RunningAggregator, nodes: list[Node], client: ControlClient, witness: Witness
) -> None:
    learn(running, nodes, 1)
    assert client.command("pause", node="press-2") == "press-2 was asked to pause"
    heard = witness.message(Command, TOPICS.command("press-2"))
    assert (heard.command, heard.by) == ("pause", f"{ME}, at the aggregator")
    client.command("resume", node="press-2")
    assert operations(client) == [(ME, "resume node", "press-2"), (ME, "pause node", "press-2")]
    assert running.status.state == "folding"


def test_a_read_only_connection_changes_nothing(client: ControlClient) -> None:
    client.attach(read_only=True)
    for name in ("pause", "release", "roll_back", "exclude", "verify"):
        with pytest.raises(ControlError, match="this connection is read-only"):
            client.command(name)
    assert operations(client) == []


def test_the_past_is_shown_newest_first_and_by_node(
    running: RunningAggregator, nodes: list[Node], client: ControlClient
) -> None:
    learn(running, nodes, 1)
    learn(running, nodes, 2)
    running.reaches(2)
    taken = msgspec.convert(client.view("decisions"), list[Taken])
    assert [each.place for each in taken] == [4, 3, 2, 1]
    mine = msgspec.convert(client.view("decisions", node="press-2"), list[Taken])
    assert [(each.node, each.sequence, each.accepted) for each in mine] == [
        ("press-2", 2, True),
        ("press-2", 1, True),
    ]
    assert client.view("voices") == {"press-1": 0.5, "press-2": 0.5}
    with pytest.raises(ControlError, match="node: "):
        client.view("decisions", node="x" * 1000)


def test_the_ledger_is_verified_beside_the_work(
    running: RunningAggregator, nodes: list[Node], client: ControlClient
) -> None:
    for sequence in (1, 2):
        learn(running, nodes, sequence)
    client.command("verify")
    proof = running.service._desk._proof
    assert proof is not None
    proof.wait()
    assert proof.view.state == "done", proof.view
    assert "versions 0 to 2 are bit for bit what was released" in proof.view.said
    assert running.status.proof == proof.view
    assert [path.name for path in running.service._ledger.path.parent.glob("*.proof*")] == []


def test_a_disk_without_room_for_a_copy_is_left_alone(client: ControlClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "ROOM_TIMES", 1e12)
    with pytest.raises(ControlError, match="verify a backup on another machine"):
        client.command("verify")


def test_from_the_command_line(running: RunningAggregator, nodes: list[Node]) -> None:
    learn(running, nodes, 1)
    running.reaches(1)
    socket = ["--socket", str(running.service._control.path)]
    for arguments, said in (
        (["pause"], "the model stays at version 1; updates are taken and wait"),
        (["release"], "version 1 out of 0 updates that waited"),
        (["resume"], "goes on with 0 updates that waited"),
        (["roll-back", "0"], "version 2 is version 0 again"),
        (["exclude", "press-2"], "nothing of press-2 is taken any more"),
        (["readmit", "press-2"], "press-2 counts again"),
        (["pause", "press-2"], "press-2 was asked to pause"),
    ):
        result = CliRunner().invoke(command, [*arguments, *socket])
        assert (result.exit_code, result.output) == (0, f"{said}\n")
    listed = CliRunner().invoke(command, ["operations", *socket]).output.splitlines()
    assert len(listed) == 7
    assert listed[3].endswith("version 2 is version 0 again")
    assert ME in listed[0]
