"""Every mistake with certificate files is one clear line, before any broker is asked."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.certificates import KeyPair, issue_identity, read_key_pair
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from fieldfold.errors import LinkError
from fieldfold.trust.tls import MAX_PEM_BYTES, check_certificate, client_context, explain_tls_failure

Issue = Callable[[datetime], IdentityFiles]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> BrokerFolder:
    root = tmp_path_factory.mktemp("trust") / "broker"
    initialise(root, nodes=["press-07", "kiln-01"])
    return BrokerFolder(root)


@pytest.fixture
def files(prepared: BrokerFolder, tmp_path: Path) -> IdentityFiles:
    """A copy of press-07's folder, to spoil."""
    shutil.copytree(prepared.identities / "press-07", tmp_path / "press-07")
    return IdentityFiles(*(tmp_path / "press-07" / name for name in ("ca.crt", "press-07.crt", "press-07.key")))


@pytest.fixture
def issued(prepared: BrokerFolder, files: IdentityFiles) -> Issue:
    """press-07's files, issued by the real authority at a time of our choice."""

    def issue(now: datetime) -> IdentityFiles:
        authority = read_key_pair(prepared.ca_certificate, prepared.ca_key)
        pair: KeyPair = issue_identity(authority, "press-07", now)
        files.certificate.write_bytes(pair.certificate_pem)
        files.key.write_bytes(pair.key_pem)
        return files

    return issue


def refusal(files: IdentityFiles) -> LinkError:
    with pytest.raises(LinkError) as caught:
        client_context(files.ca, files.certificate, files.key)
    assert "\n" not in str(caught.value)
    return caught.value


def test_good_files_give_a_context_that_verifies_server_and_name(files: IdentityFiles) -> None:
    context = client_context(files.ca, files.certificate, files.key)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1, "the system's authorities are not trusted"


def test_a_certificate_tells_whose_it_is_and_until_when(files: IdentityFiles) -> None:
    facts = check_certificate(files.certificate, files.key)

    assert facts.common_name == "press-07"
    days = (datetime.fromtimestamp(facts.expires_s, UTC) - datetime.now(UTC)).days
    assert days in {729, 730}


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_a_missing_file_is_named(files: IdentityFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.unlink()

    error = refusal(files)

    assert str(path) in error.reason
    assert "is not there" in error.reason


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_a_folder_in_place_of_a_file_is_named(files: IdentityFiles, which: str) -> None:
    path: Path = getattr(files, which)
    path.unlink()
    path.mkdir()

    assert f"{path}: " in refusal(files).reason


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x01\x0a" + bytes(64)])
def test_a_file_that_is_not_pem_is_named(files: IdentityFiles, which: str, content: bytes) -> None:
    path: Path = getattr(files, which)
    path.write_bytes(content)

    error = refusal(files)

    assert str(path) in error.reason
    assert "in PEM form" in error.reason


@pytest.mark.parametrize("which", ["ca", "certificate", "key"])
def test_damaged_pem_is_named(files: IdentityFiles, which: str) -> None:
    path: Path = getattr(files, which)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][::-1].strip() + b"\n", *lines[2:]]))

    assert str(path) in refusal(files).reason


def test_an_endless_file_is_not_read(files: IdentityFiles) -> None:
    with files.ca.open("wb") as file:
        file.truncate(MAX_PEM_BYTES + 1)

    assert "too large" in refusal(files).reason


def test_the_key_of_somebody_else_is_refused(prepared: BrokerFolder, files: IdentityFiles) -> None:
    shutil.copy(prepared.identity("kiln-01").key, files.key)

    error = refusal(files)

    assert error.reason == f"{files.key}: does not belong to {files.certificate}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_key_that_others_may_read_is_refused_and_the_remedy_is_a_command(files: IdentityFiles, mode: int) -> None:
    files.key.chmod(mode)

    error = refusal(files)

    assert f"mode {mode:04o}" in error.reason
    assert error.hint == f"chmod 600 {files.key}"


def test_an_expired_certificate_is_found_before_the_broker_is_asked(issued: Issue) -> None:
    error = refusal(issued(datetime.now(UTC) - timedelta(days=731)))

    assert "has expired" in error.reason


def test_a_certificate_from_the_future_blames_the_clock(issued: Issue) -> None:
    error = refusal(issued(datetime.now(UTC) + timedelta(days=30)))

    assert "is not valid yet" in error.reason
    assert "clock" in error.hint


def test_a_gateway_whose_clock_is_hours_behind_still_gets_in(issued: Issue) -> None:
    files = issued(datetime.now(UTC) + timedelta(hours=20))

    assert check_certificate(files.certificate, files.key).common_name == "press-07"


def test_the_brokers_own_certificate_is_not_a_clients(prepared: BrokerFolder, files: IdentityFiles) -> None:
    shutil.copy(prepared.server_certificate, files.certificate)
    shutil.copy(prepared.server_key, files.key)

    assert "is not a client's certificate" in refusal(files).reason


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(files: IdentityFiles) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only here

    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    assert "passphrase" in refusal(files).reason


@given(st.text(max_size=200), st.sampled_from([OSError, ssl.SSLError, ssl.SSLEOFError, ValueError, TimeoutError]))
def test_whatever_fails_is_explained_in_one_line_that_names_the_broker(text: str, kind: type[Exception]) -> None:
    reason, hint = explain_tls_failure(kind(text), "broker.plant")

    assert "broker.plant" in reason
    assert len(reason.splitlines()) == 1
    assert len(hint.splitlines()) <= 1
