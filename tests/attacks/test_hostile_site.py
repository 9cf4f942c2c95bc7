"""Somebody who holds a site's broker, or its one identity, and wants more than to carry for the site's gateways."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_config.cli import broker
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from broker_config.invite import Guest, invite
from broker_config.lint import lint
from broker_config.members import read_members
from broker_config.revoke import revoke
from broker_config.site import Place, establish
from fieldfold.errors import ConfigError
from fieldfold.link.probe import permitted
from fieldfold.link.session import Received
from fieldfold.wire.topics import Topics
from tests.attacks.strangers import TIMEOUT_S, link_as
from tests.conftest import Mosquitto, free_port

TOPICS = Topics("plant")
OURS, OTHER = "kiln-21", "press-21"
PLACE = Place(Path("/srv/site"), 8883)


def of(node: str) -> tuple[str, ...]:
    """What a site may write for a gateway that it carries."""
    return (
        TOPICS.key(node), TOPICS.update(node), TOPICS.status(node), TOPICS.statistics(node), TOPICS.renewal(node)
    )  # fmt: skip


def established(mosquitto: Mosquitto, name: str, carries: Sequence[str], place: Path) -> IdentityFiles:
    """A copy of what the site gets, once the broker knows its rights."""
    made = establish(mosquitto.directory, name, PLACE, carries=carries)
    shutil.copytree(made, place / name)
    files = IdentityFiles(place / name / "ca.crt", place / name / f"{name}.crt", place / name / f"{name}.key")
    with link_as(mosquitto, files, f"waits-{name}") as link:
        until(lambda: permitted(link, [TOPICS.statistics(carries[0])]))
    return files


def until(condition: object, within_s: float = TIMEOUT_S) -> None:
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def site(attended_broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> IdentityFiles:
    """The identity of a site that carries for one gateway."""
    return established(attended_broker, "site-north", [OURS], tmp_path_factory.mktemp("site"))


def test_a_site_speaks_for_its_own_gateways_and_no_other(attended_broker: Mosquitto, site: IdentityFiles) -> None:
    with link_as(attended_broker, site, "site-speaks") as link:
        assert permitted(link, of(OURS)) == list(of(OURS))
        assert permitted(link, of(OTHER)) == []
        assert permitted(link, of("site-north")) == []
        assert permitted(link, [Topics("another").update(OURS)]) == []


def test_a_site_in_the_place_of_the_aggregator(attended_broker: Mosquitto, site: IdentityFiles) -> None:
    forbidden = (
        TOPICS.model_manifest,
        TOPICS.live(0),
        f"{TOPICS.snapshot(0)}/0",
        TOPICS.task_manifest,
        TOPICS.aggregator_status,
        TOPICS.aggregator_key,
        TOPICS.receipt(OURS),
        TOPICS.command(OURS),
        TOPICS.certificate(OURS),
        TOPICS.enrolment_answer("aaaabbbbccccdddd"),
    )
    with link_as(attended_broker, site, "site-forges") as link:
        assert permitted(link, forbidden) == []


def test_a_site_hears_what_is_for_its_own_gateways_and_no_other(
    attended_broker: Mosquitto, site: IdentityFiles
) -> None:
    other = attended_broker.add_identity(OTHER)
    aggregator = attended_broker.identity("aggregator")
    with (
        link_as(attended_broker, site, "site-hears") as ear,
        link_as(attended_broker, other, "site-other") as gateway,
        link_as(attended_broker, aggregator, "site-aggregator") as centre,
    ):
        ear.subscribe("fieldfold/plant/#")
        assert permitted(ear, [TOPICS.statistics(OURS)])  # the broker has the subscription by now
        assert permitted(gateway, [TOPICS.update(OTHER), TOPICS.status(OTHER)])
        told = [TOPICS.receipt(OTHER), TOPICS.command(OTHER), TOPICS.receipt(OURS), TOPICS.command(OURS)]
        assert permitted(centre, [*told, TOPICS.live(0)])
        heard: set[str] = set()
        while TOPICS.live(0) not in heard:
            event = ear.events.get(timeout=TIMEOUT_S)
            if isinstance(event, Received):
                ear.ack(event)
                heard.add(event.topic)

    assert not {topic for topic in heard if OTHER in topic}
    assert {TOPICS.receipt(OURS), TOPICS.command(OURS)} <= heard


def test_a_revoked_site_is_out_within_five_seconds(attended_broker: Mosquitto, tmp_path: Path) -> None:
    files = established(attended_broker, "site-south", ["kiln-22"], tmp_path)
    with link_as(attended_broker, files, "fieldfold-plant-site-south") as link:
        revoke(attended_broker.directory, "site-south")
        until(lambda: not link.is_up, 5.0)

    assert "user site-south\ntopic deny fieldfold/#" in BrokerFolder(attended_broker.directory).acl.read_text()
    assert not (attended_broker.directory / "identities" / "site-south").exists()


def test_a_revoked_gateway_is_carried_no_more(attended_broker: Mosquitto, tmp_path: Path) -> None:
    attended_broker.add_identity("kiln-23")
    files = established(attended_broker, "site-east", ["kiln-24", "kiln-23"], tmp_path)
    with link_as(attended_broker, files, "site-east") as link:
        assert permitted(link, [TOPICS.update("kiln-23")])
        revoke(attended_broker.directory, "kiln-23")
        until(lambda: not permitted(link, [TOPICS.update("kiln-23")]), 5.0)
        assert permitted(link, [TOPICS.update("kiln-24")])


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[tuple[Mosquitto, BrokerFolder]]:
    """A site's broker, whose centre is away, and the centre's folder."""
    centre, port = BrokerFolder(tmp_path / "centre"), free_port()
    initialise(centre.root, nodes=[OURS, OTHER], port=free_port())
    made = establish(centre.root, "site-west", Place(tmp_path / "site", port), carries=[OURS])
    shutil.copytree(made, tmp_path / "site")
    site = Mosquitto(tmp_path / "site", port)
    site.start()
    yield site, centre
    site.stop()


def test_at_the_site_nobody_but_its_gateways_may_say_anything(own_site: tuple[Mosquitto, BrokerFolder]) -> None:
    site, centre = own_site
    everything = (*of(OURS), *of(OTHER), TOPICS.live(0), TOPICS.receipt(OURS), TOPICS.enrolment_request("a"))

    with link_as(site, centre.identity(OURS), "at-site-ours") as link:
        assert permitted(link, everything) == list(of(OURS))
    for stranger in (OTHER, "aggregator", "observer", "broker"):
        with link_as(site, centre.identity(stranger), f"at-site-{stranger}") as link:
            assert permitted(link, everything) == []


def test_what_lies_at_a_site_lets_nobody_in(own_site: tuple[Mosquitto, BrokerFolder]) -> None:
    site, _ = own_site

    keys = sorted(path.name for path in site.directory.rglob("*.key"))

    assert keys == ["server.key", "site-west.key"], "its broker's and its own, and no authority's or gateway's"
    assert list(lint((site.directory / "mosquitto.conf").read_text())) == []


@pytest.mark.parametrize(
    "change", [("bridge_cafile", "#"), ("bridge_certfile", "#"), ("try_private", "bridge_insecure true\ntry_private")]
)
def test_a_bridge_that_does_not_ask_who_the_centre_is(
    own_site: tuple[Mosquitto, BrokerFolder], change: tuple[str, str]
) -> None:
    site, _ = own_site
    text = (site.directory / "mosquitto.conf").read_text().replace(*change)

    assert [finding.level for finding in lint(text)] == ["WRONG"]


def test_a_name_is_a_sites_or_a_gateways_and_a_gateway_is_carried_by_one(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, nodes=[OURS])
    establish(root, "site-north", PLACE, carries=[OURS])

    for name, carries in ((OURS, [OTHER]), ("site-south", [OURS]), ("site-south", ["site-north"]), ("s", ())):
        with pytest.raises(ConfigError):
            establish(root, name, PLACE, carries=carries)
    for name in ("aggregator", "broker", "a/b", "+", "#", "..", ""):
        with pytest.raises(ConfigError):
            establish(root, name, PLACE, carries=[OTHER])
        with pytest.raises(ConfigError):
            establish(root, "site-south", PLACE, carries=[name])
    with pytest.raises(ConfigError, match="is a site's broker"):
        invite(root, Guest("site-north"), timedelta(hours=1), again=True)
    assert [each.name for each in read_members(BrokerFolder(root)).sites] == ["site-north"]


def test_said_again_the_sites_keys_are_kept_and_its_rights_are_those_that_are_named(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    made = establish(root, "site-north", PLACE, carries=[OURS])
    keys = {path: path.read_bytes() for path in made.rglob("*.key")}

    said = CliRunner().invoke(
        broker, ["site", "site-north", "--carries", OTHER, "--host", "site.plant", "--folder", str(root)]
    )

    assert said.exit_code == 0, said.output
    assert {path: path.read_bytes() for path in made.rglob("*.key")} == keys
    for text in ((made / "acl").read_text(), (made / "mosquitto.conf").read_text(), (root / "acl").read_text()):
        assert f"fieldfold/plant/node/{OTHER}/update" in text
        assert OURS not in text
    assert "carries press-21" in CliRunner().invoke(broker, ["list", str(root)]).output
