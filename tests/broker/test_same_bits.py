"""After hundreds of versions, lost links, kill -9 of everything and a broker that forgets, all hold the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aggregator.ledger.ledger import Ledger
from benchmarks.chaos.network import BadLink
from examples.turbofan.fleet import FEDERATION
from fieldfold.control.client import ControlClient
from fieldfold.params import digest
from fieldfold.task.bundle import Bundle
from node_app.store import Store
from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file

ENGINES = {"gateway-01": (3, 5, 8, 13), "gateway-02": (21, 34, 55, 89)}
STEPS_PER_S = 400.0
VERSIONS = 300
EVERY_UPDATE_A_VERSION = '[fold]\nmethod = "fedbuff"\nbuffer_size = 1\nserver_learning_rate = 0.2\n'
RELEASE = '[release]\nprofile = "compensated"\nsnapshot_every = 30\n'


class FleetOnABadLink(LoopFleet):
    """Its gateways reach the broker through `bad_link`."""

    bad_link: BadLink

    def _broker_table(self, name: str) -> str:
        table = super()._broker_table(name)
        return table if name == "aggregator" else table.replace(str(self._port), str(self.bad_link.port))

    def kill_broker(self, *, forget: bool = False) -> None:
        """Ends Mosquitto with kill -9 and starts it again; `forget`: without its sessions and retained messages."""
        self.kill("broker")
        if forget:
            for file in (self.folder / "broker" / "data").iterdir():
                file.unlink()
        self.start_broker()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOnABadLink]:
    pace = dict.fromkeys(ENGINES, STEPS_PER_S)
    made = FleetOnABadLink(tmp_path / "fleet", bundle_file(), ENGINES, pace, fold=EVERY_UPDATE_A_VERSION + RELEASE)
    with made, BadLink(made._port) as made.bad_link:
        made.prepare_broker()
        made.start_broker()
        made.start_aggregator()
        for name in ENGINES:
            made.start_node(name)
        yield made


def reach(fleet: FleetOnABadLink, version: int) -> None:
    fleet.until(lambda status: (status["version"] or 0) >= version, f"version {version} did not come")


def test_after_300_versions_everybody_holds_the_same_bits(fleet: FleetOnABadLink) -> None:
    reach(fleet, VERSIONS // 6)
    fleet.bad_link.cut_now_and_then(seconds=4)
    reach(fleet, 2 * VERSIONS // 6)
    fleet.kill("gateway-01")
    reach(fleet, fleet.aggregator_status()["version"] + 20)
    fleet.start_node("gateway-01")
    reach(fleet, 3 * VERSIONS // 6)
    fleet.kill_broker()
    reach(fleet, 4 * VERSIONS // 6)
    fleet.kill("aggregator")
    fleet.start_aggregator()
    reach(fleet, 5 * VERSIONS // 6)
    fleet.kill_broker(forget=True)
    reach(fleet, VERSIONS)
    fleet.bad_link.cut_now_and_then(seconds=2)

    for name in ENGINES:
        with ControlClient(fleet.socket(name)) as client:
            client.command("pause")
    newest = fleet.until(lambda status: all(follows(fleet, name, status) for name in ENGINES), "not all follow")
    assert newest["version"] >= VERSIONS
    assert fleet.bad_link.cuts >= 10
    fleet.stop()
    task = Bundle.read(bundle_file()).digest
    with closing(Ledger(fleet.folder / "aggregator/state/ledger.sqlite", FEDERATION)) as ledger:
        for name in ENGINES:
            with closing(Store(fleet.folder / name / "state/node.sqlite")) as store:
                held = store.vector("global", task)
            assert held is not None
            released = ledger.version(task, held.version)
            assert released is not None
            assert (held.run, held.version) == (ledger.run(task), newest["version"])
            assert digest(held.values) == released.parameters


def follows(fleet: FleetOnABadLink, name: str, aggregator: dict[str, object]) -> bool:
    node = fleet.node_status(name)
    return bool(node and node["state"] == "paused" and node["version"] == aggregator["version"])
