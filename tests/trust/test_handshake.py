"""What a real Mosquitto and other peers answer to a wrong certificate, put into words."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker_config.certificates import issue_identity, read_key_pair
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from fieldfold.trust.tls import client_context, explain_tls_failure
from tests.conftest import Mosquitto, free_port

TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
HOST = "broker.plant"


def explained(context: ssl.SSLContext, port: int, server_name: str = "localhost") -> tuple[str, str]:
    """Connects and reads, as a client does that wants to know why it is refused."""
    with pytest.raises(OSError, match=r".*") as caught:  # noqa: SIM117, PT012 - the socket closes inside
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            with context.wrap_socket(plain, server_hostname=server_name) as secured:
                secured.recv(1)
    return explain_tls_failure(caught.value, HOST)


def showing(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client that does not look at its own certificate first, unlike ours."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> IdentityFiles:
    """press-07 of another plant."""
    root = tmp_path_factory.mktemp("foreign") / "broker"
    initialise(root, nodes=["press-07"])
    return BrokerFolder(root).identity("press-07")


@pytest.fixture
def plain_server() -> Iterator[int]:
    """Something on a port that answers, but not in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_no_certificate(mosquitto: Mosquitto, version: ssl.TLSVersion) -> None:
    context = showing(mosquitto.identity("observer").ca)
    context.maximum_version = version

    reason, hint = explained(context, mosquitto.port)

    assert HOST in reason
    assert "set certificate and key" in hint


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_a_certificate_of_another_plant(
    mosquitto: Mosquitto, foreign: IdentityFiles, version: ssl.TLSVersion
) -> None:
    context = showing(mosquitto.identity("observer").ca, foreign.certificate, foreign.key)
    context.maximum_version = version

    reason, _ = explained(context, mosquitto.port)

    assert reason == f"{HOST} does not know the CA that signed our certificate"


def test_an_expired_certificate(mosquitto: Mosquitto, tmp_path: Path) -> None:
    folder = BrokerFolder(mosquitto.directory)
    authority = read_key_pair(folder.ca_certificate, folder.ca_key)
    pair = issue_identity(authority, "press-07", datetime.now(UTC) - timedelta(days=800))
    (tmp_path / "old.crt").write_bytes(pair.certificate_pem)
    (tmp_path / "old.key").write_bytes(pair.key_pem)

    reason, _ = explained(showing(folder.ca_certificate, tmp_path / "old.crt", tmp_path / "old.key"), mosquitto.port)

    assert "our certificate has expired" in reason


def test_the_servers_certificate_shown_by_a_client(mosquitto: Mosquitto) -> None:
    folder = BrokerFolder(mosquitto.directory)

    reason, _ = explained(
        showing(folder.ca_certificate, folder.server_certificate, folder.server_key), mosquitto.port
    )

    assert "it is not a client's" in reason


def test_a_broker_that_our_ca_did_not_sign(mosquitto: Mosquitto, foreign: IdentityFiles) -> None:
    reason, _ = explained(client_context(foreign.ca, foreign.certificate, foreign.key), mosquitto.port)

    assert reason == f"the certificate of {HOST} is not signed by the CA that we trust"


@pytest.mark.parametrize("name", ["broker.plant", "10.0.0.1"])
def test_a_broker_by_a_name_that_is_not_its_own(mosquitto: Mosquitto, name: str) -> None:
    files = mosquitto.identity("observer")

    reason, hint = explained(client_context(files.ca, files.certificate, files.key), mosquitto.port, name)

    assert "is not for the name" in reason
    assert f"fieldfold broker init DIR --host {HOST}" in hint


def test_tls_that_is_too_old(mosquitto: Mosquitto) -> None:
    files = mosquitto.identity("observer")
    context = showing(files.ca, files.certificate, files.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    reason, _ = explained(context, mosquitto.port)

    assert "no TLS that is new enough" in reason


def test_a_port_that_does_not_speak_tls(mosquitto: Mosquitto, plain_server: int) -> None:
    files = mosquitto.identity("observer")

    reason, hint = explained(client_context(files.ca, files.certificate, files.key), plain_server)

    assert reason == f"{HOST} does not speak TLS on this port"
    assert "8883" in hint


def test_a_port_where_nobody_listens(mosquitto: Mosquitto) -> None:
    files = mosquitto.identity("observer")

    reason, _ = explained(client_context(files.ca, files.certificate, files.key), free_port())

    assert reason == f"nobody listens at {HOST}"
