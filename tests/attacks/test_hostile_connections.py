"""Somebody on the network who wants to be let in, or wants a gateway to talk to them instead of the broker."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker_config.certificates import KeyPair, new_authority, read_key_pair
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.revoke import revoke
from broker_config.sessions import MOST, Sessions
from fieldfold.errors import LinkError
from fieldfold.link.endpoint import resolve
from fieldfold.link.probe import connected, permitted
from fieldfold.link.session import LinkConfig
from fieldfold.trust.tls import client_context
from tests.attacks.strangers import TIMEOUT_S, certificate, context, gets_in, link_as, written
from tests.conftest import Mosquitto, free_port


@pytest.fixture(scope="module")
def ca(mosquitto: Mosquitto) -> Path:
    return BrokerFolder(mosquitto.directory).ca_certificate


@pytest.fixture(scope="module")
def authority(mosquitto: Mosquitto) -> KeyPair:
    folder = BrokerFolder(mosquitto.directory)
    return read_key_pair(folder.ca_certificate, folder.ca_key)


def test_the_same_by_hand_with_a_good_certificate_gets_in(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path
) -> None:
    good = written(certificate("by-hand", authority), tmp_path)

    assert gets_in(mosquitto.port, context(ca, good))


def test_plain_tcp_instead_of_tls(mosquitto: Mosquitto) -> None:
    assert not gets_in(mosquitto.port, None)


def test_no_certificate(mosquitto: Mosquitto, ca: Path) -> None:
    assert not gets_in(mosquitto.port, context(ca))


def test_a_self_signed_certificate_with_the_aggregators_name(mosquitto: Mosquitto, ca: Path, tmp_path: Path) -> None:
    assert not gets_in(mosquitto.port, context(ca, written(certificate("aggregator"), tmp_path)))


def test_a_certificate_of_another_authority(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path
) -> None:
    foreign = new_authority(authority.certificate.not_valid_before_utc + timedelta(days=1))

    assert not gets_in(mosquitto.port, context(ca, written(certificate("aggregator", foreign), tmp_path)))


def test_a_certificate_of_another_authority_that_bears_the_name_of_ours(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path
) -> None:
    impostor = KeyPair(authority.certificate, new_authority(authority.certificate.not_valid_before_utc).key)

    assert not gets_in(mosquitto.port, context(ca, written(certificate("aggregator", impostor), tmp_path)))


def test_an_expired_certificate(mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path) -> None:
    ended = certificate("late", authority, begins=timedelta(days=-9), ends=timedelta(seconds=-1))

    assert not gets_in(mosquitto.port, context(ca, written(ended, tmp_path)))


def test_a_certificate_of_tomorrow(mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path) -> None:
    early = certificate("early", authority, begins=timedelta(days=1), ends=timedelta(days=9))

    assert not gets_in(mosquitto.port, context(ca, written(early, tmp_path)))


def test_a_servers_certificate_in_the_place_of_a_clients(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path
) -> None:
    server = certificate("aggregator", authority, usage=ExtendedKeyUsageOID.SERVER_AUTH)

    assert not gets_in(mosquitto.port, context(ca, written(server, tmp_path)))


def test_a_node_that_signs_a_certificate_with_its_own(mosquitto: Mosquitto, ca: Path, tmp_path: Path) -> None:
    files = mosquitto.add_identity("signs-itself")
    node = read_key_pair(files.certificate, files.key)
    chain, key = written(certificate("aggregator", node), tmp_path)
    chain.write_bytes(chain.read_bytes() + files.certificate.read_bytes())

    assert not gets_in(mosquitto.port, context(ca, (chain, key)))


def test_a_revoked_certificate_is_refused_and_told_so_in_words(attended_broker: Mosquitto, tmp_path: Path) -> None:
    files = attended_broker.add_identity("thrown-out")
    pair = written(read_key_pair(files.certificate, files.key), tmp_path)
    ca = BrokerFolder(attended_broker.directory).ca_certificate
    assert gets_in(attended_broker.port, context(ca, pair))

    revoke(attended_broker.directory, "thrown-out")

    wait_until_refused(attended_broker.port, context(ca, pair))
    with pytest.raises(LinkError) as refusal, link_as(attended_broker, IdentityFiles(ca, *pair), "thrown-out"):
        pass
    assert "revoked" in refusal.value.reason
    assert refusal.value.hint


def wait_until_refused(port: int, tls: ssl.SSLContext) -> None:
    for _ in range(50):
        if not gets_in(port, tls):
            return
        threading.Event().wait(0.1)
    pytest.fail("still let in after five seconds")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_an_old_version_of_tls(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    weak = context(ca, written(certificate("weak", authority), tmp_path))
    weak.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        weak.minimum_version = weak.maximum_version = version

    assert not gets_in(mosquitto.port, weak)


def test_a_weak_cipher(mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path) -> None:
    weak = context(ca, written(certificate("weak", authority), tmp_path))
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("aNULL:eNULL:@SECLEVEL=0")

    assert not gets_in(mosquitto.port, weak)


@pytest.mark.parametrize("name", ["+", "#", "+/update", "press-08/update", "../press-08", "press-08/../press-08"])
def test_a_name_in_a_certificate_that_would_mean_more_than_one_node(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path, name: str
) -> None:
    files = IdentityFiles(ca, *written(certificate(name, authority), tmp_path))

    with link_as(mosquitto, files, "many-names") as link:
        assert permitted(link, ["fieldfold/f/node/press-08/update", "fieldfold/f/model/manifest"]) == []


@pytest.mark.parametrize("client_id", ["+", "#", "aggregator", "fieldfold-plant-aggregator"])
def test_a_client_id_that_would_mean_somebody_else(mosquitto: Mosquitto, client_id: str) -> None:
    with link_as(mosquitto, mosquitto.add_identity("plain-node"), client_id) as link:
        assert permitted(link, ["fieldfold/f/node/press-08/update", "fieldfold/f/model/manifest"]) == []


@pytest.mark.parametrize("leaf", ["update", "status", "statistics", "receipt", "command"])
def test_another_nodes_topics(mosquitto: Mosquitto, leaf: str) -> None:
    with link_as(mosquitto, mosquitto.add_identity("plain-node"), "plain-node") as link:
        assert permitted(link, [f"fieldfold/plant/node/press-08/{leaf}"]) == []


def test_a_packet_larger_than_the_broker_takes(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path
) -> None:
    tls = context(ca, written(certificate("too-large", authority), tmp_path))
    with (
        socket.create_connection(("localhost", mosquitto.port), TIMEOUT_S) as plain,
        tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"\x10\x14\x00\x04MQTT\x04\x02\x00\x3c\x00\x08stranger")
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        connection.sendall(b"\x30\xff\xff\xff\x7f\x00\x04x/yz")  # a PUBLISH that announces 256 MB

        assert connection.recv(1) == b""


# -- those who would be the broker --


def served(pair: tuple[Path, Path]) -> tuple[int, threading.Thread]:
    """A listener on loopback that shows `pair`; ends after one connection."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*pair)
    listening = socket.create_server(("127.0.0.1", free_port()))

    def serve() -> None:
        with listening:
            connection, _ = listening.accept()
            try:
                tls.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return int(listening.getsockname()[1]), thread


@pytest.mark.parametrize("whose", ["self-signed", "a node's"])
def test_a_false_broker_is_told_nothing(mosquitto: Mosquitto, tmp_path: Path, whose: str) -> None:
    files = mosquitto.add_identity("plain-node")
    other = mosquitto.add_identity("false-broker")
    shown = written(certificate("localhost"), tmp_path) if whose == "self-signed" else (other.certificate, other.key)
    port, thread = served(shown)
    config = LinkConfig(
        url=f"mqtts://localhost:{port}", ca=str(files.ca), certificate=str(files.certificate), key=str(files.key)
    )

    with pytest.raises(LinkError) as refusal, connected(config, "plain-node", Path()):
        pass

    thread.join(TIMEOUT_S)
    assert refusal.value.hint


def test_a_configuration_that_leaves_out_tls_is_refused_before_it_connects() -> None:
    with pytest.raises(LinkError, match="unprotected"):
        resolve(LinkConfig(url="mqtt://broker.plant:1883"), Path())


def test_a_configuration_that_leaves_out_the_authority_is_refused_before_it_connects() -> None:
    with pytest.raises(LinkError, match="ca, certificate, key not set"):
        resolve(LinkConfig(url="mqtts://broker.plant:8883"), Path())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_may_read_is_not_used(mosquitto: Mosquitto, tmp_path: Path, mode: int) -> None:
    files = mosquitto.add_identity("plain-node")
    key = tmp_path / "plain-node.key"
    key.write_bytes(files.key.read_bytes())
    key.chmod(mode)

    with pytest.raises(LinkError, match="may be read by others") as refusal:
        client_context(files.ca, files.certificate, key)

    assert refusal.value.hint == f"chmod 600 {key}"


# -- those who would deceive whoever reads the log --


def test_a_client_id_that_looks_like_a_line_of_the_log() -> None:
    sessions = Sessions()
    lie = "x (p5, c0, k60, u'press-08')."
    sessions.read(f"2026: New client connected from 10.0.0.9:1 as {lie} (p5, c0, k60, u'press-09').")

    assert sessions.of("press-08") == []
    assert sessions.of("press-09") == [lie]


def test_client_ids_without_end() -> None:
    sessions = Sessions()
    for number in range(MOST + 10):
        sessions.read(f"2026: New client connected from 10.0.0.9:1 as id-{number} (p5, c0, k60, u'press-09').")

    assert len(sessions.of("press-09")) == MOST
    assert sessions.of("press-09")[-1] == f"id-{MOST + 9}"


@pytest.mark.parametrize(
    "end",
    [
        "Client me closed its connection.",
        "Client me disconnected.",
        "Client me disconnected due to protocol error.",
        "Client me has exceeded timeout, disconnecting.",
        "Socket error on client me, disconnecting.",
    ],
)
def test_a_session_that_ended_is_nobodys_to_take_over(end: str) -> None:
    sessions = Sessions()
    sessions.read("2026: New client connected from 10.0.0.9:1 as me (p5, c0, k60, u'press-09').")

    sessions.read(f"2026: {end}")

    assert sessions.of("press-09") == []


@pytest.mark.parametrize("client_id", ["a\nb", "a\x1b[2Jb", "a\x00b", "\x9b31m"])
def test_a_client_id_that_would_write_lines_or_colours_into_the_log(
    mosquitto: Mosquitto, ca: Path, authority: KeyPair, tmp_path: Path, client_id: str
) -> None:
    tls = context(ca, written(certificate("plain-node", authority), tmp_path))
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2, "big") + name
    with (
        socket.create_connection(("localhost", mosquitto.port), TIMEOUT_S) as plain,
        tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"\x10" + bytes([len(body)]) + body)

        assert connection.recv(4) != b"\x20\x02\x00\x00"

    assert client_id not in mosquitto.log
