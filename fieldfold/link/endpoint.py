"""Where a link connects and as whom: `LinkConfig` resolved and checked."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from fieldfold.errors import LinkError
from fieldfold.link.session import LinkConfig
from fieldfold.trust.tls import client_context

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
LONGEST_PASSWORD_BYTES = 65_535


class TlsFiles(msgspec.Struct, frozen=True):
    """The broker's CA and our own certificate and key (PEM)."""

    ca: Path
    certificate: Path
    key: Path


class Endpoint(msgspec.Struct, frozen=True):
    """A broker and the means to be let in."""

    host: str
    port: int
    tls: TlsFiles | None
    username: str | None
    password: str | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def context(self) -> ssl.SSLContext | None:
        """A TLS context from the files as they are now (certificates get renewed), or None without TLS.

        Raises:
            FieldfoldError: when a file is missing or unfit.
        """
        if self.tls is None:
            return None
        return client_context(self.tls.ca, self.tls.certificate, self.tls.key)


def resolve(config: LinkConfig, base: Path) -> Endpoint:
    """The endpoint that `config` describes; paths are relative to `base`.

    Raises:
        LinkError: for a URL without TLS to a foreign host, missing certificates, or a password file that is not fit.
    """
    host, port, secure = _address(config.url)
    if not secure and not config.allow_plain and not _is_loopback(host):
        raise LinkError(
            f"{config.url}: plain MQTT would leave this machine unprotected",
            "use mqtts:// with certificates, or set allow_plain = true on a network you trust",
        )
    return Endpoint(
        host=host,
        port=port,
        tls=identity(config, base) if secure else None,
        username=config.username or None,
        password=_password(config, base),
    )


def _address(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in DEFAULT_PORTS or not host or parts.path or parts.query or parts.fragment or port == 0:
        raise LinkError(f"{url} is not the address of a broker", "write mqtts://HOST:PORT, for example :8883")
    return host, port or DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def identity(config: LinkConfig, base: Path) -> TlsFiles:
    """The files by which a program is known: to the broker in TLS, and to the other side by what it signs.

    Raises:
        LinkError: when one is not set.
    """
    missing = [name for name in ("ca", "certificate", "key") if not getattr(config, name)]
    if missing:
        raise LinkError(
            f"{config.url}: {', '.join(missing)} not set under [broker]",
            "give the three PEM files that `fieldfold broker init` wrote; without TLS too, since messages are signed",
        )
    return TlsFiles(ca=base / config.ca, certificate=base / config.certificate, key=base / config.key)


def _password(config: LinkConfig, base: Path) -> str | None:
    if not config.password_file:
        return None
    path = base / config.password_file
    if not config.username:
        raise LinkError("password_file is set but username is not", "set username under [broker]")
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_PASSWORD_BYTES + 1)
        password = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise LinkError(f"{path}: cannot be read: {error.strerror}", "correct password_file under [broker]") from None
    except UnicodeDecodeError:
        raise LinkError(f"{path}: is not UTF-8 text", "save the password as one line of text") from None
    if not password or len(content) > LONGEST_PASSWORD_BYTES or "\n" in password:
        raise LinkError(f"{path}: is not one line of text", "save the password as one line of text")
    return password
