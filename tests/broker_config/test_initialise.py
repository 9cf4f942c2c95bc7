"""`fieldfold broker init`: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aggregator.config import load
from broker_config.certificates import read_certificate, server_hosts
from broker_config.cli import broker
from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from broker_config.invite import Guest, invite
from broker_config.mosquitto import Listener, listeners
from fieldfold.errors import ConfigError
from fieldfold.link.endpoint import resolve
from fieldfold.trust.invitation import read_code


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_writes_all_that_a_broker_and_its_gateways_need(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", nodes=["press-07"])

    assert set(contents(tmp_path / "broker")) == {
        "ca/ca.crt",
        "ca/ca.key",
        "server/server.crt",
        "server/server.key",
        "mosquitto.conf",
        "acl",
        "crl.pem",
        "members.json",
        "aggregator.toml",
        *(
            f"identities/{name}/{file}"
            for name in ("aggregator", "observer", "broker", "press-07")
            for file in ("aggregator.pin", "ca.crt", f"{name}.crt", f"{name}.key")
        ),
    }
    assert (tmp_path / "broker" / "data").is_dir()


def test_keys_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    before = os.umask(0)
    try:
        initialise(root, nodes=["press-07"])
    finally:
        os.umask(before)

    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix == ".key":
            assert mode == 0o600, path
        else:
            assert not mode & 0o022, path


def test_an_identity_is_good_for_connecting_and_for_nothing_else(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", nodes=["press-07"])
    folder = BrokerFolder(tmp_path / "broker")

    certificate = read_certificate(folder.identity("press-07").certificate)

    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "press-07"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(read_certificate(folder.ca_certificate))


def test_certificates_begin_a_day_ago_and_last_two_years_the_authority_ten(tmp_path: Path) -> None:
    initialise(tmp_path / "broker")
    folder = BrokerFolder(tmp_path / "broker")
    now = datetime.now(UTC)

    for path, years in ((folder.ca_certificate, 10), (folder.identity("aggregator").certificate, 2)):
        certificate = read_certificate(path)
        assert timedelta(hours=23) < now - certificate.not_valid_before_utc < timedelta(hours=25)
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=365.25 * years)) < timedelta(days=2)


def test_a_second_init_adds_identities_and_changes_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, nodes=["press-07"])
    before = contents(root)

    initialise(root, nodes=["press-07", "kiln-01"])

    after = contents(root)
    assert set(after) - set(before) == {
        f"identities/kiln-01/{name}" for name in ("aggregator.pin", "ca.crt", "kiln-01.crt", "kiln-01.key")
    }
    assert {path: after[path] for path in before} == before


def test_a_further_host_is_added_to_the_certificate_and_opens_the_listener(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    folder = BrokerFolder(root)
    initialise(root, port=9883)
    assert listeners(folder.configuration.read_text()) == [Listener(9883, "127.0.0.1")]
    before = contents(root)

    initialise(root, hosts=["Broker.Plant", "10.0.0.5"])

    assert server_hosts(read_certificate(folder.server_certificate)) == [
        "localhost",
        "broker.plant",
        "127.0.0.1",
        "10.0.0.5",
    ]
    assert listeners(folder.configuration.read_text()) == [Listener(9883)]
    changed = {path for path, content in contents(root).items() if before[path] != content}
    assert changed == {"server/server.crt", "mosquitto.conf"}


def test_the_aggregators_configuration_names_federation_and_broker_and_follows_the_port(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, federation="turbofan", port=9883)
    path = BrokerFolder(root).aggregator_configuration
    config = load(path)
    assert (config.federation, config.broker.url) == ("turbofan", "mqtts://localhost:9883")
    assert resolve(config.broker, root).tls is not None
    path.write_text(path.read_text() + "# mine\n")

    initialise(root, port=9884)

    assert load(path).broker.url == "mqtts://localhost:9884"
    assert path.read_text().endswith("# mine\n")


def test_a_folder_keeps_its_federation_and_an_invitation_takes_it(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, federation="turbofan")

    assert read_code(invite(root, Guest("press-07"), timedelta(hours=1))).federation == "turbofan"
    with pytest.raises(ConfigError, match="is of turbofan; for a second federation"):
        initialise(root, federation="kilns")
    BrokerFolder(root).aggregator_configuration.unlink()
    with pytest.raises(ConfigError, match="--federation NAME"):
        invite(root, Guest("press-08"), timedelta(hours=1))


def test_several_are_invited_at_once(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)

    said = CliRunner().invoke(broker, ["invite", "press-07", "press-08", "--folder", str(root)]).stdout

    rows = dict(line.split() for line in said.splitlines())
    assert [read_code(code).node for code in rows.values()] == list(rows) == ["press-07", "press-08"]


def test_what_a_person_edited_in_mosquitto_conf_stays_when_the_port_changes(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    path = BrokerFolder(root).configuration
    path.write_text(path.read_text() + "max_connections 50\n")

    initialise(root, port=9884)

    assert path.read_text().endswith("max_connections 50\n")
    assert listeners(path.read_text()) == [Listener(9884, "127.0.0.1")]


def test_an_init_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    folder = BrokerFolder(root)
    authority = folder.ca_key.read_bytes()
    for path in (folder.configuration, folder.acl, folder.server_key, folder.server_certificate):
        path.unlink()
    folder.server_key.parent.rmdir()
    leftover = folder.identities / ".new-abc"
    leftover.mkdir()
    (leftover / "press-07.key").write_bytes(b"half a ke")

    initialise(root, nodes=["press-07"])

    assert folder.ca_key.read_bytes() == authority
    assert folder.server_key.is_file()
    assert folder.configuration.is_file()
    assert folder.identity_names() == ["aggregator", "broker", "observer", "press-07"]
    assert not leftover.exists()


def test_a_folder_from_before_there_were_revocations_gets_what_it_lacks(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    folder = BrokerFolder(root)
    written = folder.configuration.read_text()
    folder.configuration.write_text(written.replace(f"crlfile {folder.crl}\n", ""))
    for path in (folder.crl, folder.members):
        path.unlink()

    initialise(root)

    assert folder.configuration.read_text() == written
    assert folder.crl.is_file()
    assert folder.members.is_file()


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")

    with pytest.raises(ConfigError, match="holds other things"):
        initialise(tmp_path)

    assert contents(tmp_path) == {"thesis.tex": b"chapter 1"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("")

    with pytest.raises(ConfigError, match="cannot be made a broker's folder"):
        initialise(tmp_path / "broker")


@pytest.mark.parametrize(
    "name", ["aggregator", "observer", "broker", "server", "ca", "bridge-1", "Press", "a/b", "..", "a.b", "#", ""]
)
def test_a_name_that_is_not_allowed_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        initialise(tmp_path / "broker", nodes=["press-07", name])

    assert not (tmp_path / "broker").exists()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "a b", "-x", "*.plant", "x" * 64, "224.0.0.1"])  # noqa: S104
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError):
        initialise(tmp_path / "broker", hosts=[host])


def test_an_authority_whose_key_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root)
    BrokerFolder(root).ca_key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")

    with pytest.raises(ConfigError, match=r"ca\.key: is not a plain private key"):
        initialise(root, nodes=["press-07"])


def test_an_identity_with_a_file_missing_is_not_quietly_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "broker"
    initialise(root, nodes=["press-07"])
    BrokerFolder(root).identity("press-07").key.unlink()

    with pytest.raises(ConfigError, match=r"lacks press-07\.key"):
        initialise(root, nodes=["press-07"])


def test_it_says_what_it_did_and_which_command_is_next(tmp_path: Path) -> None:
    root = tmp_path / "my broker"

    result = CliRunner().invoke(broker, ["init", str(root), "--node", "press-07", "--host", "broker.plant"])

    assert result.exit_code == 0
    assert f"{root}/identities/press-07  written; copy this folder to press-07" in result.output
    assert f"{root}/server  written for broker.plant, localhost, 127.0.0.1" in result.output
    assert result.output.endswith(
        f"Next: fieldfold broker run '{root}'\n      fieldfold aggregator run --config '{root}/aggregator.toml'\n"
    )


def test_list_shows_everybody_and_when_their_certificates_end(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", nodes=["press-07"])

    result = CliRunner().invoke(broker, ["list", str(tmp_path / "broker")])

    rows = {line.split()[0]: line for line in result.output.splitlines()}
    assert list(rows) == ["(authority)", "(broker)", "aggregator", "broker", "observer", "press-07"]
    end = datetime.now(UTC) + timedelta(days=730)
    assert f"{end:%Y-%m}" in rows["press-07"]
    assert "days left" in rows["press-07"]


def test_list_of_another_folder_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(broker, ["list", str(tmp_path)])

    assert isinstance(result.exception, ConfigError)
    assert result.exception.hint == f"fieldfold broker init {tmp_path}"


def test_without_cryptography_the_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from fieldfold.cli.main import main; main(['broker', 'init', sys.argv[1]])"
    )

    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "broker")], capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert "pip install 'fieldfold[aggregator]'" in result.stderr
    assert "Traceback" not in result.stderr
