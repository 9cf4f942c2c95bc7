"""The fleet's screens in a real tmux, at a real aggregator and Mosquitto, which is killed under them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file
from tests.terminal.tmux import Tmux, until

ENGINES = {"gateway-01": (3, 5, 8, 13), "gateway-02": (21, 34, 55, 89)}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LoopFleet]:
    with LoopFleet(tmp_path / "fleet", bundle_file(), ENGINES, dict.fromkeys(ENGINES, 40.0)) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        for name in ENGINES:
            fleet.start_node(name)
        fleet.until(lambda status: (status["version"] or 0) >= 2, "no version came")
        yield fleet


@pytest.mark.timeout(400)
def test_a_day_of_an_operator_of_the_fleet(fleet: LoopFleet, tmp_path: Path) -> None:
    socket = fleet.socket("aggregator")
    tmux = Tmux(tmp_path / "tmux", f"{sys.executable} -m fieldfold aggregator tui --socket {socket}")
    try:
        tmux.reads("FOLDING", "gateway-01", "gateway-02", "2 of 2 online", "held-out RMSE")
        tmux.press("Enter")
        tmux.reads("It says", "holds v", "accepted")
        tmux.press("r")
        tmux.reads("Held-out score", "b Roll back")

        fleet.kill("aggregator")
        assert "Held-out score" in tmux.reads("NOT REACHED"), "what was heard last stays"
        fleet.start_aggregator()
        tmux.reads("FOLDING", "link ok")

        tmux.press("n")
        tmux.reads("gateway-02")
        tmux.press("x")
        tmux.reads("Exclude gateway-01?")
        tmux.press("y")
        tmux.reads("excluded")
        tmux.press("p")
        tmux.reads("Hold the model at v")
        tmux.press("y")
        tmux.reads("PAUSED")
        tmux.press("o")
        tmux.reads("pause", "nothing of gateway-01", "exclude")
        tmux.press("q")
        until(lambda: not tmux.is_there, "q does not leave")
        status = fleet.aggregator_status()
        assert status["state"] == "paused", "leaving changes nothing"
        assert [bool(node["excluded_by"]) for node in status["nodes"]] == [True, False]
    finally:
        tmux.end()
