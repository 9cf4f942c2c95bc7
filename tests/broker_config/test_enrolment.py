"""From `fieldfold broker invite` over a real broker to a gateway that may connect, and out again with `revoke`."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import ssl
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_config.certificates import read_certificate
from broker_config.cli import broker
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from broker_config.invite import Guest, duration, invite
from broker_config.members import GENERATED, read_members
from broker_config.renew import renew
from broker_config.revoke import revoke
from fieldfold.errors import ConfigError, LinkError
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, LinkConfig, Received
from fieldfold.trust.invitation import read_code
from node_app import config as node_config
from node_app.enroll import enroll
from tests.conftest import Mosquitto

TIMEOUT_S = 10.0
DAY = timedelta(days=1)


def code_for(mosquitto: Mosquitto, node: str, *, again: bool = False) -> str:
    return invite(mosquitto.directory, Guest(node, "plant"), DAY, again=again)


def enrolled(mosquitto: Mosquitto, node: str, place: Path, *, again: bool = False) -> IdentityFiles:
    made = enroll(
        read_code(code_for(mosquitto, node, again=again)), place / "node.toml", data="data/*.csv", again=again
    )
    return IdentityFiles(made.identity / "ca.crt", made.identity / f"{node}.crt", made.identity / f"{node}.key")


def link_of(mosquitto: Mosquitto, files: IdentityFiles, client_id: str) -> MqttLink:
    config = LinkConfig(url=mosquitto.url, ca=str(files.ca), certificate=str(files.certificate), key=str(files.key))
    link = MqttLink(config, client_id=client_id, base=Path())
    link.start()
    return link


def comes(link: MqttLink, kind: type[object], within_s: float = TIMEOUT_S) -> bool:
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            if isinstance(link.events.get(timeout=left), kind):
                return True
    return False


def is_out(link: MqttLink, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while link.is_up and time.monotonic() < deadline:
        time.sleep(0.02)
    return not link.is_up


def test_one_command_on_each_side_and_the_gateway_may_connect(attended_broker: Mosquitto, tmp_path: Path) -> None:
    invited = CliRunner().invoke(broker, ["invite", "press-01", "--folder", str(attended_broker.directory)])
    program = "from fieldfold.cli.main import main; main()"
    node_toml = tmp_path / "gateway" / "node.toml"

    done = subprocess.run(
        [sys.executable, "-c", program, "node", "enroll", "--config", str(node_toml)],
        input=invited.stdout,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Next: fieldfold node run --config {node_toml}\n")
    config = node_config.load(node_toml)
    assert (config.name, config.federation, config.broker.url) == ("press-01", "plant", attended_broker.url)
    link = MqttLink(config.broker, client_id="fieldfold-plant-press-01", base=node_toml.parent)
    link.start()
    assert comes(link, Connected)
    assert link.publish("fieldfold/plant/node/press-01/status", b"{}").wait(TIMEOUT_S)
    link.stop()


def test_the_private_key_never_leaves_the_gateway(attended_broker: Mosquitto, tmp_path: Path) -> None:
    files = enrolled(attended_broker, "press-02", tmp_path)

    key = load_pem_private_key(files.key.read_bytes(), None)
    certificate = read_certificate(BrokerFolder(attended_broker.directory).enrolled_certificate("press-02"))
    assert certificate.public_key() == key.public_key()
    secret = files.key.read_bytes()
    elsewhere = [path for path in attended_broker.directory.rglob("*") if path.is_file()]
    assert not any(secret in path.read_bytes() for path in elsewhere)
    assert not (attended_broker.directory / "identities" / "press-02").exists()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    names = ["aggregator.pin", "ca.crt", "press-02.crt", "press-02.key"]
    assert sorted(path.name for path in files.key.parent.iterdir()) == names
    beside = attended_broker.identity("observer").key.with_name("aggregator.pin")
    assert (files.key.parent / "aggregator.pin").read_text() == beside.read_text()


def test_a_configuration_that_is_there_is_kept(attended_broker: Mosquitto, tmp_path: Path) -> None:
    text = 'name = "press-03"\nfederation = "plant"\n# mine\n'
    (tmp_path / "node.toml").write_text(text)

    enrolled(attended_broker, "press-03", tmp_path)

    assert (tmp_path / "node.toml").read_text() == text


def test_a_configuration_of_another_node_is_named_before_the_invitation_is_used(
    attended_broker: Mosquitto, tmp_path: Path
) -> None:
    code = code_for(attended_broker, "press-04")
    (tmp_path / "node.toml").write_text('name = "oven-01"\nfederation = "plant"\n')

    with pytest.raises(ConfigError, match="name is 'oven-01', and the invitation is for 'press-04'"):
        enroll(read_code(code), tmp_path / "node.toml", data="*.csv")

    assert enroll(read_code(code), tmp_path / "right" / "node.toml", data="*.csv").wrote_configuration


def test_an_identity_that_is_there_is_replaced_only_when_told(attended_broker: Mosquitto, tmp_path: Path) -> None:
    before = enrolled(attended_broker, "press-05", tmp_path).key.read_bytes()
    with pytest.raises(ConfigError, match="--again"):
        code_for(attended_broker, "press-05")
    code = code_for(attended_broker, "press-05", again=True)
    with pytest.raises(ConfigError, match="is there already"):
        enroll(read_code(code), tmp_path / "node.toml", data="*.csv")

    enroll(read_code(code), tmp_path / "node.toml", data="*.csv", again=True)

    assert (tmp_path / "identity" / "press-05.key").read_bytes() != before


def test_without_the_caretaker_the_code_is_good_for_another_attempt(own_mosquitto: Mosquitto, tmp_path: Path) -> None:
    code = read_code(code_for(own_mosquitto, "press-06"))
    own_mosquitto.stop()
    own_mosquitto.start()
    with pytest.raises(LinkError, match=r"nobody at .* answers") as refusal:
        enroll(code, tmp_path / "node.toml", data="*.csv", patience_s=1.0)
    assert "the code is still good" in refusal.value.hint
    key = (tmp_path / f".enrol-{code.id}" / "press-06.key").read_bytes()
    own_mosquitto.stop()
    own_mosquitto.attended = True
    own_mosquitto.start()

    enroll(code, tmp_path / "node.toml", data="*.csv")

    assert (tmp_path / "identity" / "press-06.key").read_bytes() == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identity", "mosquitto", "node.toml"]


def test_a_revoked_node_is_out_within_five_seconds_and_stays_out(attended_broker: Mosquitto, tmp_path: Path) -> None:
    files = enrolled(attended_broker, "press-09", tmp_path)
    other = link_of(attended_broker, attended_broker.identity("aggregator"), "revoke-other")
    link = link_of(attended_broker, files, "any 'client' id (p5, c0, k60, u'observer').")
    assert comes(link, Connected)
    assert comes(other, Connected)
    broker_process = attended_broker.pid

    revoke(attended_broker.directory, "press-09")

    assert is_out(link, 5.0)
    assert not comes_up_again(link)
    assert attended_broker.pid == broker_process
    assert other.is_up
    assert "its session" in attended_broker.log
    for each in (link, other):
        each.stop()


def comes_up_again(link: MqttLink) -> bool:
    deadline = time.monotonic() + 2.5  # the link tries after one second
    while time.monotonic() < deadline:
        if link.is_up:
            return True
        time.sleep(0.02)
    return False


def test_a_node_whose_key_was_made_beside_the_broker_is_thrown_out_too(attended_broker: Mosquitto) -> None:
    files = attended_broker.add_identity("press-10")
    kept = IdentityFiles(*(copy_of(path) for path in (files.ca, files.certificate, files.key)))
    link = link_of(attended_broker, kept, "press-10")
    assert comes(link, Connected)

    revoke(attended_broker.directory, "press-10")

    assert is_out(link, 5.0)
    assert not files.key.exists()
    link.stop()


def copy_of(path: Path) -> Path:
    copy = path.parents[2] / f"copy-of-{path.name}"
    copy.touch(mode=0o600)
    copy.write_bytes(path.read_bytes())
    return copy


def test_without_the_caretaker_a_revoked_name_may_say_and_hear_nothing(own_mosquitto: Mosquitto) -> None:
    files = own_mosquitto.add_identity("press-13")
    kept = IdentityFiles(*(copy_of(path) for path in (files.ca, files.certificate, files.key)))
    link = link_of(own_mosquitto, kept, "press-13")
    aggregator = link_of(own_mosquitto, own_mosquitto.identity("aggregator"), "revoke-aggregator")
    assert comes(link, Connected)
    assert comes(aggregator, Connected)
    link.subscribe("fieldfold/plant/#")
    assert link.publish("fieldfold/plant/node/press-13/status", b"{}").wait(TIMEOUT_S)

    revoke(own_mosquitto.directory, "press-13")
    os.kill(own_mosquitto.pid, signal.SIGHUP)
    time.sleep(0.5)

    assert not link.publish("fieldfold/plant/node/press-13/status", b"{}").wait(TIMEOUT_S)
    assert aggregator.publish("fieldfold/plant/node/press-13/command", b"{}").wait(TIMEOUT_S)
    assert aggregator.publish("fieldfold/plant/model/live/0", b"a model").wait(TIMEOUT_S)
    assert not comes(link, Received, within_s=1.0)
    for each in (link, aggregator):
        each.stop()


def test_the_gateway_that_replaces_another_of_its_name_shuts_the_former_out(
    attended_broker: Mosquitto, tmp_path: Path
) -> None:
    former = link_of(attended_broker, enrolled(attended_broker, "press-11", tmp_path / "former"), "press-11-former")
    assert comes(former, Connected)

    now = link_of(
        attended_broker, enrolled(attended_broker, "press-11", tmp_path / "new", again=True), "press-11-new"
    )

    assert comes(now, Connected)
    assert is_out(former, 5.0)
    assert not comes_up_again(former)
    for each in (former, now):
        each.stop()


def test_a_name_that_was_revoked_may_be_invited_again(attended_broker: Mosquitto, tmp_path: Path) -> None:
    enrolled(attended_broker, "press-12", tmp_path / "former")
    revoke(attended_broker.directory, "press-12")

    link = link_of(attended_broker, enrolled(attended_broker, "press-12", tmp_path / "new"), "press-12")

    assert comes(link, Connected)
    link.subscribe("fieldfold/plant/node/press-12/command")
    assert link.publish("fieldfold/plant/node/press-12/status", b"{}").wait(TIMEOUT_S)
    aggregator = link_of(attended_broker, attended_broker.identity("aggregator"), "revoke-aggregator")
    assert comes(aggregator, Connected)
    assert aggregator.publish("fieldfold/plant/node/press-12/command", b"{}").wait(TIMEOUT_S)
    assert comes(link, Received)
    for each in (link, aggregator):
        each.stop()


def test_an_identity_beside_the_broker_may_be_made_anew_after_revoking(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", nodes=["press-07"])
    revoke(tmp_path / "broker", "press-07")
    assert read_members(BrokerFolder(tmp_path / "broker")).out == ("press-07",)

    initialise(tmp_path / "broker", nodes=["press-07"])

    assert read_members(BrokerFolder(tmp_path / "broker")).out == ()
    assert "user press-07" not in BrokerFolder(tmp_path / "broker").acl.read_text()


def test_renewed_certificates_are_for_the_old_keys_and_revoke_knows_the_old_ones(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, nodes=["press-07"])
    folder = BrokerFolder(root)
    before = {path: read_certificate(path) for path in root.rglob("*.crt") if path.name != "ca.crt"}
    assert renew(root) == []

    assert renew(root, everything=True) == ["(broker)", "aggregator", "broker", "observer", "press-07"]

    for path, former in before.items():
        now = read_certificate(path)
        assert now.serial_number != former.serial_number
        assert now.public_key() == former.public_key()
    former = before[folder.identity("press-07").certificate]
    revoke(root, "press-07")
    assert f"{former.serial_number:x}" in {each.serial for each in read_members(folder).revoked}


def test_a_running_broker_shows_its_renewed_certificate_without_a_restart(own_mosquitto: Mosquitto) -> None:
    own_mosquitto.stop()
    own_mosquitto.attended = True
    own_mosquitto.start()
    address = ("127.0.0.1", own_mosquitto.port)
    before = ssl.get_server_certificate(address)

    renew(own_mosquitto.directory, everything=True)

    deadline = time.monotonic() + TIMEOUT_S
    while ssl.get_server_certificate(address) == before:
        assert time.monotonic() < deadline, "the former certificate is still shown"
        time.sleep(0.1)


def test_what_a_person_wrote_into_the_acl_stays(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    acl = BrokerFolder(root).acl
    own, _, _ = acl.read_text().partition(GENERATED)
    acl.write_text(f"{own}user dashboard\ntopic read fieldfold/+/model/manifest\n{GENERATED}")

    invite(root, Guest("press-07", "plant"), DAY)

    assert "user dashboard\ntopic read fieldfold/+/model/manifest\n" in acl.read_text()
    assert acl.read_text().count(GENERATED) == 1


def test_list_shows_who_is_in_invited_and_out(attended_broker: Mosquitto, tmp_path: Path) -> None:
    enrolled(attended_broker, "list-in", tmp_path)
    code_for(attended_broker, "list-invited")
    attended_broker.add_identity("list-out")
    revoke(attended_broker.directory, "list-out")

    shown = CliRunner().invoke(broker, ["list", str(attended_broker.directory)]).output

    rows = {line.split()[0]: line for line in shown.splitlines()}
    assert "days left" in rows["list-in"]
    assert f"{datetime.now(UTC) + DAY:%Y-%m-%d}  invited" in rows["list-invited"]
    assert "REVOKED" in rows["list-out"]


def test_nobody_of_that_name_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    initialise(tmp_path / "broker")

    with pytest.raises(ConfigError, match="press-99 has neither") as refusal:
        revoke(tmp_path / "broker", "press-99")

    assert "fieldfold broker list" in refusal.value.hint


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("24h", 86_400), ("7d", 604_800)])
def test_an_invitations_life_is_said_in_minutes_hours_or_days(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0h", "24", "-1h", "1w", "31d", "24h ", "9999999d"])
def test_an_invitations_life_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="30d at most"):
        duration(text)
