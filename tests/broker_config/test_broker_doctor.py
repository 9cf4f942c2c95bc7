"""`fieldfold broker doctor`: what it finds in a folder and at the running broker."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_config.certificates import issue_server, read_key_pair
from broker_config.cli import broker
from broker_config.doctor import examine
from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from broker_config.invite import Guest, invite
from broker_config.lint import lint
from broker_config.members import GENERATED
from broker_config.mosquitto import Listener, configuration
from broker_config.revoke import revoke
from fieldfold.findings import Finding
from tests.conftest import Mosquitto

WRITTEN = configuration(BrokerFolder(Path("/srv/broker")), Listener(8883))


def wrong(findings: list[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.level == "WRONG"]


def test_of_a_broker_as_it_is_set_up_nothing_is_wrong(attended_broker: Mosquitto) -> None:
    shown = CliRunner().invoke(broker, ["doctor", str(attended_broker.directory)])

    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[-1].endswith("checks, nothing wrong")
    assert "refuses who comes without TLS" in shown.output
    assert "refuses who comes without a certificate" in shown.output


def test_without_a_caretaker_it_names_what_does_not_happen(mosquitto: Mosquitto) -> None:
    found = wrong(list(examine(mosquitto.directory)))

    assert len(found) == 1
    assert f"fieldfold broker run {mosquitto.directory}" in found[0]


@pytest.fixture
def folder(tmp_path: Path) -> BrokerFolder:
    initialise(tmp_path / "broker", nodes=["press-07"])
    return BrokerFolder(tmp_path / "broker")


def found_in(folder: BrokerFolder) -> str:
    return "\n".join(wrong(list(examine(folder.root))))


def test_a_key_that_others_may_read_is_named_with_the_remedy(folder: BrokerFolder) -> None:
    folder.ca_key.chmod(0o644)

    assert f"{folder.ca_key}: may be read by others (mode 0644); chmod 600 {folder.ca_key}" in found_in(folder)


def test_a_folder_that_others_may_write_is_named(folder: BrokerFolder) -> None:
    folder.identities.chmod(0o777)

    assert f"{folder.identities}: may be written by others" in found_in(folder)


def test_a_certificate_that_has_ended_and_one_that_soon_will_are_named(folder: BrokerFolder) -> None:
    authority = read_key_pair(folder.ca_certificate, folder.ca_key)
    past = datetime.now(UTC) - timedelta(days=731)
    folder.server_certificate.write_bytes(issue_server(authority, ["localhost"], past).certificate_pem)
    soon = issue_server(authority, ["localhost"], past + timedelta(days=30))
    folder.identity("press-07").certificate.write_bytes(soon.certificate_pem)

    findings = {finding.says.partition(":")[0]: finding for finding in examine(folder.root)}

    assert findings["(broker)"].level == "WRONG"
    assert "has expired" in findings["(broker)"].says
    assert findings["press-07"].level == "note"
    assert "fieldfold broker renew" in findings["press-07"].hint


def test_a_revocation_list_that_lacks_somebody_is_named(folder: BrokerFolder) -> None:
    before = folder.crl.read_bytes()
    revoke(folder.root, "press-07")
    folder.crl.write_bytes(before)

    assert f"{folder.crl}: lacks press-07" in found_in(folder)


def test_a_revocation_list_of_another_authority_is_named(folder: BrokerFolder, tmp_path: Path) -> None:
    initialise(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "crl.pem", folder.crl)

    assert "is not the authority's" in found_in(folder)


def test_an_acl_whose_last_part_was_edited_is_named(folder: BrokerFolder) -> None:
    invite(folder.root, Guest("press-08", "plant"), timedelta(hours=1))
    folder.acl.write_text(
        folder.acl.read_text().replace("topic deny fieldfold/+/model/#\ntopic deny", "topic deny", 1)
    )
    text = folder.acl.read_text()
    own, _, end = text.partition(GENERATED)
    folder.acl.write_text(own + GENERATED + end.replace("topic write", "topic readwrite"))

    assert "its last part is not as the books have it" in found_in(folder)


def test_a_rule_that_gives_everybody_the_model_to_write_is_named(folder: BrokerFolder) -> None:
    folder.acl.write_text(f"pattern write fieldfold/+/model/#\n{folder.acl.read_text()}")

    assert "'pattern write fieldfold/+/model/#' holds for everybody" in found_in(folder)


def test_a_folder_that_is_no_brokers_is_one_line(tmp_path: Path) -> None:
    assert len(wrong(list(examine(tmp_path)))) == 1


def test_the_configuration_that_init_writes_passes() -> None:
    assert list(lint(WRITTEN)) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("allow_anonymous false", "allow_anonymous true", "anybody may connect"),
        ("acl_file /srv/broker/acl", "", "everybody may say everything"),
        ("require_certificate true", "require_certificate false", "somebody without a certificate could connect"),
        ("require_certificate true", "", "somebody without a certificate could connect"),
        ("use_identity_as_username true", "", "a client could choose its own name"),
        ("crlfile /srv/broker/crl.pem", "", "whoever was revoked comes back"),
        ("tls_version tlsv1.2", "tls_version tlsv1.1", "allows old TLS"),
        ("listener 8883", "listener 1883 0.0.0.0\n\nlistener 8883", "listener 1883 0.0.0.0: no TLS"),
        ("listener 8883", "", "has no listener"),
        ("log_dest stderr", "log_dest file /var/log/mosquitto", "a revoked session is not ended"),
        (
            "persistence true",
            "persistence true\npersistent_client_expiration 14d",
            "may crash when it reads its rules",
        ),
        ("max_queued_messages 100000", "max_queued_messages many", "chunks may be dropped"),
    ],
)
def test_a_setting_that_opens_the_broker_is_named(before: str, after: str, words: str) -> None:
    assert before in WRITTEN

    found = list(lint(WRITTEN.replace(before, after)))

    assert any(words in finding.says for finding in found)
    assert all(finding.hint for finding in found)


def test_a_broker_that_speaks_without_tls_is_found_out(own_mosquitto: Mosquitto) -> None:
    folder = BrokerFolder(own_mosquitto.directory)
    text = folder.configuration.read_text()
    own_mosquitto.stop()
    open_to_all = text.partition("# TLS 1.2")[0].replace("allow_anonymous false", "allow_anonymous true")
    folder.configuration.write_text(open_to_all.replace(f"acl_file {folder.acl}", ""))
    own_mosquitto.start()

    found = "\n".join(wrong(list(examine(folder.root))))

    assert "speaks with somebody without TLS" in found
    assert "anybody may connect" in found


def test_a_broker_whose_rules_are_too_wide_is_found_out(own_mosquitto: Mosquitto) -> None:
    folder = BrokerFolder(own_mosquitto.directory)
    own_mosquitto.stop()
    folder.acl.write_text(f"{folder.acl.read_text()}\nuser observer\ntopic write fieldfold/#\n")
    own_mosquitto.start()

    found = "\n".join(wrong(list(examine(folder.root))))

    assert "the broker lets observer publish to fieldfold/doctor-tries-this/node/press-07/update" in found


def test_nothing_a_file_is_called_moves_the_terminal() -> None:
    said = str(Finding("WRONG", "\x1b[2J\x07evil\r\n", "\x9b31m"))

    assert said.isprintable()


def test_the_exit_code_says_it_for_scripts(tmp_path: Path) -> None:
    shown = CliRunner().invoke(broker, ["doctor", str(tmp_path)])

    assert shown.exit_code == 1
    assert shown.output.endswith("1 checks, 1 wrong\n")


def test_websockets_are_named_for_what_they_do_to_the_broker_with_certificates_or_without() -> None:
    main, _, tls = WRITTEN.rpartition("listener 8883")
    secured = f"{main}listener 8883{tls}listener 8884\nprotocol websockets{tls}"
    opened = f"{main}listener 8883{tls}listener 8884\nprotocol websockets\n"

    assert [finding.says for finding in lint(secured)] == [
        "listener 8884: websockets: Mosquitto 2.0 crashes on them when it has read its rules again"
    ]
    assert any("no TLS" in finding.says for finding in lint(opened))
