"""`[broker]` tables that cannot work are refused before anything is connected."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldfold.errors import LinkError
from fieldfold.link.endpoint import resolve
from fieldfold.link.session import LinkConfig
from tests.conftest import Mosquitto
from tests.link.brokers import plain_link

FILE = "password"
MISSING_FILE = "none"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtt://127.0.0.1", "127.0.0.1", 1883),
        ("mqtt://localhost:1884", "localhost", 1884),
        ("mqtt://[::1]:1884", "::1", 1884),
    ],
)
def test_plain_mqtt_is_for_loopback(url: str, host: str, port: int) -> None:
    endpoint = resolve(LinkConfig(url=url), Path())
    assert (endpoint.host, endpoint.port, endpoint.tls) == (host, port, None)


@pytest.mark.parametrize("url", ["mqtt://192.0.2.1", "mqtt://broker.plant:1883", "mqtt://localhost.example"])
def test_plain_mqtt_beyond_loopback_must_be_allowed(url: str) -> None:
    with pytest.raises(LinkError, match="plain MQTT") as caught:
        resolve(LinkConfig(url=url), Path())
    assert "mqtts://" in caught.value.hint
    assert resolve(LinkConfig(url=url, allow_plain=True), Path()).tls is None


@pytest.mark.parametrize("url", ["mqtts://:8883", "http://host", "mqtts://host:0", "mqtts://host:x", "mqtts://h?a"])
def test_an_address_must_name_a_host_and_a_port(url: str) -> None:
    with pytest.raises(LinkError, match="is not the address of a broker"):
        resolve(LinkConfig(url=url), Path())


def test_tls_needs_all_three_files(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="certificate, key not set"):
        resolve(LinkConfig(url="mqtts://host", ca="ca.crt"), tmp_path)


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    endpoint = resolve(LinkConfig(url="mqtts://host", ca="ca.crt", certificate="c.crt", key="c.key"), tmp_path)
    assert endpoint.port == 8883
    assert endpoint.tls is not None
    assert endpoint.tls.ca == tmp_path / "ca.crt"


def test_a_certificate_that_is_not_there_stops_the_link_from_starting(tmp_path: Path) -> None:
    link = plain_link("mqtts://localhost:1", "x", base=tmp_path, ca="ca.crt", certificate="c.crt", key="c.key")
    with pytest.raises(LinkError, match=r"c\.crt: the certificate is not there"):
        link.start()


def test_a_link_starts_only_once(mosquitto: Mosquitto) -> None:
    files = mosquitto.identity("aggregator")
    link = plain_link(
        mosquitto.url, "twice", ca=str(files.ca), certificate=str(files.certificate), key=str(files.key)
    )
    link.start()
    with pytest.raises(LinkError, match="only once"):
        link.start()
    link.stop()


def test_the_password_is_one_line_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("sécret \n", encoding="utf-8")
    config = LinkConfig(url="mqtt://localhost", username="press-07", password_file=FILE)
    endpoint = resolve(config, tmp_path)
    assert (endpoint.username, endpoint.password) == ("press-07", "sécret ")


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe", b"x" * 70_000])
def test_any_other_password_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    with pytest.raises(LinkError, match="password: is not"):
        resolve(LinkConfig(url="mqtt://localhost", username="a", password_file=FILE), tmp_path)


def test_a_password_needs_its_file_and_a_name(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="No such file"):
        resolve(LinkConfig(url="mqtt://localhost", username="a", password_file=MISSING_FILE), tmp_path)
    with pytest.raises(LinkError, match="username is not"):
        resolve(LinkConfig(url="mqtt://localhost", password_file=MISSING_FILE), tmp_path)
