"""`fieldfold aggregator status`, against a running one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from aggregator.cli import aggregator as command
from aggregator.config import AggregatorConfig
from aggregator.fold.fedbuff import FedBuff
from fieldfold.errors import ControlError
from fieldfold.link.memory import MemoryBroker
from fieldfold.wire.messages import NodePresence, write
from tests.aggregator.running import Node, RunningAggregator, eventually
from tests.aggregator.tiny import TOPICS, bundle, config, update


def test_status_for_people_and_for_programs(
    start: Callable[[AggregatorConfig], RunningAggregator], broker: MemoryBroker, tmp_path: Path
) -> None:
    running = start(config(FedBuff(buffer_size=1)))
    arguments = ["status", "--socket", str(tmp_path / "control.sock")]
    empty = CliRunner().invoke(command, arguments)
    assert "federation  plant: waiting for a task" in empty.output
    assert "none yet: fieldfold task publish X.bundle" in empty.output

    running.publish(bundle("raw", "none"))
    running.reaches(0)
    node = Node(broker, "press-1")
    node.link.publish(TOPICS.status("press-1"), write(NodePresence(node="press-1", state="training", version=0)))
    node.send(update(sequence=1))
    node.send(update(sequence=2, num_steps=0))
    eventually(lambda: running.status.rejected == 1)
    running.reaches(1)
    shown = CliRunner().invoke(command, arguments).output.splitlines()
    assert shown[0] == "federation  plant: folding"
    assert "version     1" in shown
    assert "nodes       1 of 1 online" in shown
    assert "updates     1 accepted, 1 rejected, 0 malformed" in shown
    assert "staleness   median 0, largest 0" in shown
    assert " ".join(shown[-1].split()) == (
        "press-1 training v0 1 accepted 1 rejected last refusal: num_steps is 0: nothing was trained"
    )
    everything = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).output)
    assert everything["float32_bytes"] == 12
    assert everything["nodes"][0]["presence"]["state"] == "training"


def test_nobody_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["status", "--socket", str(tmp_path / "none.sock")])
    assert isinstance(result.exception, ControlError)
    assert "no daemon answers there" in result.exception.reason
