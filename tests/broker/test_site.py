"""A plant site with a broker of its own: a gateway trains through two real Mosquittos, and none of it comes twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_config.folder import BrokerFolder, IdentityFiles
from examples.turbofan.fleet import FEDERATION, free_port, listens
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import LinkConfig, Received
from fieldfold.wire.topics import Topics
from tests.broker.loop import PATIENCE_S, LoopFleet
from tests.node_app.turbofan import bundle_file

NODE = "gateway-01"
SITE = "site-north"
TOPICS = Topics(FEDERATION)


class SiteFleet(LoopFleet):
    """Broker and aggregator at the centre; at the site a broker that bridges to it, to which the gateway connects."""

    @property
    def site(self) -> Path:
        """The site's folder, where it was copied to."""
        return self.folder / "site"

    def set_up_site(self) -> None:
        self.site_port = free_port()
        centre = str(self.folder / "broker")
        place = ("--port", str(self.site_port), "--at", str(self.site), "--federation", FEDERATION)
        self._complete("broker", "site", SITE, "--carries", NODE, *place, "--folder", centre)
        shutil.copytree(self.folder / "broker" / "identities" / SITE, self.site)

    def start_site(self) -> None:
        self._spawn("site", "broker", "run", str(self.site))
        self._wait("site", lambda: listens(self.site_port))

    def start_centre_again(self) -> None:
        self._spawn("broker", "broker", "run", str(self.folder / "broker"))
        self._wait("broker", lambda: listens(self._port))

    def stop(self) -> None:
        self._end([*self.engines])
        self._end(["site"])
        super().stop()

    def _broker_table(self, name: str) -> str:
        table = super()._broker_table(name)
        return table.replace(f":{self._port}", f":{self.site_port}") if name in self.engines else table


class Ear:
    """Everything that somebody may hear at a broker, from now on."""

    def __init__(self, port: int, files: IdentityFiles, folder: Path) -> None:
        config = LinkConfig(
            url=f"mqtts://localhost:{port}", ca=str(files.ca), certificate=str(files.certificate), key=str(files.key)
        )
        self._link = MqttLink(config, client_id=f"ear-{port}", base=folder)
        self._link.subscribe("#")
        self._link.start()

    def hears(self, topic: str, count: int) -> list[bytes]:
        """The next so many messages on a topic."""
        heard: list[bytes] = []
        while len(heard) < count:
            event = self._link.events.get(timeout=PATIENCE_S)
            if isinstance(event, Received):
                self._link.ack(event)
                heard += [event.payload] if event.topic == topic else []
        return heard

    def stop(self) -> None:
        self._link.stop()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteFleet]:
    folder = tmp_path_factory.mktemp("sites")
    with SiteFleet(folder, bundle_file(), {NODE: (3, 5, 8, 13)}, {NODE: 20.0}) as running:
        running.prepare_broker()
        running.set_up_site()  # a broker that runs needs a second to read its rules again
        running.start_broker()
        running.start_site()
        running.start_aggregator()
        running.start_node(NODE)
        yield running


def accepted(status: Any) -> int:
    return next((int(node["accepted"]) for node in status["nodes"] if node["node"] == NODE), 0)


def test_a_gateway_of_the_site_trains_and_gets_its_receipts(fleet: SiteFleet) -> None:
    status = fleet.until(lambda now: accepted(now) >= 3, "no update came through")

    assert status["rejected"] == status["malformed"] == 0
    node = fleet.node_status(NODE)
    assert node["connected"]
    assert node["version"] >= 1
    assert "u'gateway-01'" not in fleet.log("broker"), "it was never connected to the centre itself"
    assert f"u'{SITE}'" in fleet.log("broker")


def test_what_crosses_the_bridge_comes_once(fleet: SiteFleet) -> None:
    identities = BrokerFolder(fleet.folder / "broker")
    at_centre = Ear(fleet._port, identities.identity("aggregator"), fleet.folder)
    at_site = Ear(fleet.site_port, identities.identity(NODE), fleet.folder)

    updates = at_centre.hears(TOPICS.update(NODE), 5)
    receipts = at_site.hears(TOPICS.receipt(NODE), 3)

    assert len(set(updates)) == len(updates)
    assert len(set(receipts)) == len(receipts)
    for ear in (at_centre, at_site):
        ear.stop()


def test_after_an_outage_of_the_centre_it_goes_on_with_nothing_counted_twice(fleet: SiteFleet) -> None:
    before = accepted(fleet.until(accepted, "nothing was accepted"))
    fleet.end("broker")
    fleet.start_centre_again()

    status = fleet.until(lambda now: accepted(now) >= before + 5, "nothing comes after the outage")

    assert status["rejected"] == status["malformed"] == 0


def test_the_sites_broker_has_no_authority_and_its_doctor_finds_nothing_wrong(fleet: SiteFleet) -> None:
    assert not list(fleet.site.rglob("ca.key"))
    fleet._complete("broker", "doctor", str(fleet.site))
