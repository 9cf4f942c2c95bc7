"""`fieldfold node doctor`: what it says of a gateway on a real broker."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_config.folder import BrokerFolder
from fieldfold.findings import Finding
from node_app.cli import node
from node_app.doctor import examine
from tests.conftest import EmbeddedBroker, Mosquitto

NAME = "doctored"


@pytest.fixture
def config(mosquitto: Mosquitto, tmp_path: Path) -> Path:
    files = mosquitto.add_identity(NAME)
    identity = tmp_path / "identity"
    identity.mkdir(mode=0o700)
    for path in (files.ca, files.certificate, files.key):
        copy = identity / path.name
        copy.touch(mode=0o600)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "data.csv").write_text("force,heat\n1,2\n")
    path = tmp_path / "node.toml"
    path.write_text(
        f'name = "{NAME}"\nfederation = "doctor"\nstate_dir = "state"\n[broker]\nurl = "{mosquitto.url}"\n'
        f'ca = "identity/ca.crt"\ncertificate = "identity/{NAME}.crt"\nkey = "identity/{NAME}.key"\n'
        '[data]\nfiles = ["*.csv"]\n'
    )
    return path


def wrong(path: Path) -> list[Finding]:
    return [finding for finding in examine(path) if finding.level == "WRONG"]


def changed(path: Path, before: str, after: str) -> Path:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return path


def test_of_a_gateway_as_it_should_be_nothing_is_wrong(config: Path) -> None:
    shown = CliRunner().invoke(node, ["doctor", "--config", str(config)])

    assert shown.exit_code == 0, shown.output
    assert "what is not ours is refused (6 topics tried)" in shown.output
    assert shown.output.endswith("10 checks, nothing wrong\n")


def test_a_key_that_others_may_read_is_named(config: Path) -> None:
    key = config.parent / "identity" / f"{NAME}.key"
    key.chmod(0o640)

    assert any(f"chmod 600 {key}" in finding.hint for finding in wrong(config))


def test_a_certificate_for_another_name_is_named(config: Path) -> None:
    found = wrong(changed(config, f'name = "{NAME}"', 'name = "press-08"'))

    assert any(f"the certificate is for {NAME}, and name is press-08" in finding.says for finding in found)
    assert any("was it revoked" in finding.hint for finding in found)


def test_a_clock_that_is_behind_is_named(config: Path) -> None:
    ahead = time.time() + 86_400
    os.utime(config, (ahead, ahead))

    assert any(finding.hint == "set the clock" for finding in wrong(config))


def test_data_that_is_not_there_is_named(config: Path) -> None:
    assert "no file matches *.parquet" in wrong(changed(config, '"*.csv"', '"*.parquet"'))[0].says


def test_a_broker_that_is_not_there_is_named(config: Path, mosquitto: Mosquitto) -> None:
    found = wrong(changed(config, mosquitto.url, "mqtts://localhost:1"))

    assert [finding.says for finding in found] == ["localhost:1: nobody listens there"]


def test_a_broker_that_another_authority_signed_is_named(config: Path, own_mosquitto: Mosquitto) -> None:
    (config.parent / "identity" / "ca.crt").write_bytes(
        BrokerFolder(own_mosquitto.directory).ca_certificate.read_bytes()
    )

    assert "not signed by the CA that we trust" in wrong(config)[0].says


def test_a_broker_that_lets_a_node_write_for_others_is_found_out(config: Path, own_mosquitto: Mosquitto) -> None:
    files = own_mosquitto.add_identity(NAME)
    own_mosquitto.stop()
    acl = BrokerFolder(own_mosquitto.directory).acl
    acl.write_text(acl.read_text().replace("pattern write fieldfold/+/node/%u/", "pattern write fieldfold/+/node/+/"))
    own_mosquitto.start()
    text = config.read_text().partition("[broker]")
    config.write_text(
        f'{text[0]}[broker]\nurl = "{own_mosquitto.url}"\nca = "{files.ca}"\ncertificate = "{files.certificate}"\n'
        f'key = "{files.key}"\n[data]\nfiles = ["*.csv"]\n'
    )

    found = wrong(config)

    assert [finding.hint for finding in found] == ["mend the broker's access rules"]
    assert "node/doctor-tries-this/update" in found[0].says


def test_a_broker_without_tls_is_a_note(config: Path, embedded_broker: EmbeddedBroker) -> None:
    head = config.read_text().partition("[broker]")[0]
    config.write_text(f'{head}[broker]\nurl = "{embedded_broker.url}"\n[data]\nfiles = ["*.csv"]\n')

    notes = [finding.says for finding in examine(config) if finding.level == "note"]

    assert notes == [f"{embedded_broker.url}: no TLS and no identities"]


def test_a_configuration_that_does_not_load_is_one_line(config: Path) -> None:
    found = list(examine(changed(config, "federation", "fedaration")))

    assert len(found) == 1
    assert "did you mean federation?" in found[0].hint
