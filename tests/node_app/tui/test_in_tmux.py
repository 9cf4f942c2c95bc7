"""The screens in a real tmux, attached to a real daemon at a real Mosquitto, which is killed under them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file
from tests.terminal.tmux import Tmux, end_daemon, until

NODE = "gateway-01"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LoopFleet]:
    with LoopFleet(tmp_path / "fleet", bundle_file(), {NODE: (3, 5, 8, 13)}, {NODE: 40.0}) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        fleet.start_node(NODE)
        until(lambda: fleet.node_status(NODE) is not None, "the daemon does not answer")
        yield fleet


@pytest.mark.timeout(400)
def test_a_day_of_an_operator(fleet: LoopFleet, tmp_path: Path) -> None:
    command = f"{sys.executable} -m fieldfold node --socket {fleet.socket(NODE)}"
    tmux = Tmux(tmp_path / "tmux", command)
    try:
        said = tmux.reads(NODE, "link ok", " accepted, 0 rejected", "#", "Needs you", "steps/s")
        assert "localhost" in said
        tmux.press("d")
        tmux.reads("windows:", "remaining life")
        tmux.press("t")
        tmux.reads("decision", "accepted", "runs; last")

        fleet.kill(NODE)
        assert "accepted" in tmux.reads("NOT REACHED"), "what was heard last stays"
        fleet.start_node(NODE)
        tmux.reads("link ok", "accepted")

        fleet.kill("broker")
        tmux.press("n")
        tmux.reads("link down")
        tmux.press("p")
        tmux.reads("Pause training on gateway-01?")
        tmux.press("y")
        tmux.reads("PAUSED", "p Go on")
        assert fleet.node_status(NODE)["state"] == "paused"
        tmux.press("q")
        until(lambda: not tmux.is_there, "q does not leave")
        assert fleet.node_status(NODE)["state"] == "paused", "leaving changes nothing"
    finally:
        tmux.end()


@pytest.mark.timeout(400)
def test_where_no_daemon_runs_one_is_started_and_goes_on_alone(fleet: LoopFleet, tmp_path: Path) -> None:
    fleet.end(NODE)
    config = fleet.folder / NODE / "node.toml"
    tmux = Tmux(tmp_path / "tmux", f"{sys.executable} -m fieldfold node --config {config}")
    try:
        tmux.reads(NODE, "link ok", "steps/s")
        tmux.press("q")
        until(lambda: not tmux.is_there, "q does not leave")
        assert fleet.node_status(NODE)["connected"], "the daemon goes on without the screens"
    finally:
        tmux.end()
        end_daemon(fleet.socket(NODE))
