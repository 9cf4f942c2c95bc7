"""Another program under the node's name is said in log and status, and the two leave each other some time."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.reasons import session_taken_over
from fieldfold.link.session import BrokerLimits, Connected, Disconnected
from node_app.link_state import MENDED_AFTER_S, LinkState
from tests.identities import broker_table
from tests.link.brokers import PlainMosquitto
from tests.node_app.beside import NODE
from tests.node_app.process import NodeProcess
from tests.node_app.running import Running, says, until

UP = Connected(session_present=True, limits=BrokerLimits())


def test_a_takeover_is_named_with_what_to_do(running: Running, broker: MemoryBroker) -> None:
    with running() as daemon:
        says(daemon, "waiting for a task")
        namesake = MemoryLink(broker, client_id=NODE)
        namesake.start()
        status = says(daemon, "needs attention")
        assert "another program connected as press-07" in status.detail
        assert "stop the other one, or give each its own name" in status.detail
        assert not until(daemon, lambda status: not status.connected).connected
        namesake.stop()


def test_it_is_said_once_and_stays_in_the_status_until_a_session_lasts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    state = LinkState("mqtts://broker:8883")
    taken_over = session_taken_over("press-07")
    for now in (0.0, 40.0, 80.0):
        state.connected(UP, now)
        state.tick(now + 30)
        state.refused(taken_over)
        state.disconnected(Disconnected(taken_over.reason))
        assert taken_over.hint in state.trouble
    assert sum(taken_over.hint in record.message for record in caplog.records) == 1
    state.connected(UP, 120.0)
    state.tick(120.0 + MENDED_AFTER_S)
    assert state.trouble
    state.tick(121.0 + MENDED_AFTER_S)
    assert not state.trouble


def test_a_broker_that_does_not_name_it_does_not_hide_it(tmp_path: Path) -> None:
    """Mosquitto 2.0.11 ends the older session without a word."""
    broker = PlainMosquitto(tmp_path / "broker")
    broker.start()
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    url = broker_table("press-07", broker.url)
    with NodeProcess(folders[0], url) as first, NodeProcess(folders[1], url) as second:
        for node in (first, second):
            node.says("connected to")
        deadline = time.monotonic() + 40
        while not any(
            "another program uses the name fieldfold-plant-press-07" in each.log for each in (first, second)
        ):
            assert time.monotonic() < deadline, first.log + second.log
            time.sleep(0.1)
        assert {first.ends(), second.ends()} == {0}
    broker.stop()
