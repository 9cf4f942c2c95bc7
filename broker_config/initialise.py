"""`fieldfold broker init`: makes sure that a broker's folder holds all it should, and overwrites no key, ever."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker_config import federation as beside
from broker_config.acl import standing_rules
from broker_config.certificates import (
    ALWAYS_NAMED,
    KeyPair,
    aggregator_pin,
    check_host,
    issue_identity,
    issue_server,
    new_authority,
    read_authority,
    read_certificate,
    read_key_pair,
    server_hosts,
)
from broker_config.folder import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    PUBLIC_FILE,
    BrokerFolder,
    new_folder,
    opened_for_writing,
    replace_file,
    write_new,
)
from broker_config.members import read_members, write_members
from broker_config.mosquitto import Listener, configuration, listeners, with_listener, with_revocation_list
from fieldfold.errors import ConfigError
from fieldfold.trust.credentials import PINS_FILE
from fieldfold.wire.topics import Topics, check_node_name

DEFAULT_PORT = 8883
STANDING_IDENTITIES = ("aggregator", "observer", "broker")


@dataclass(frozen=True)
class Step:
    """One thing that `init` looked after."""

    path: Path
    outcome: str


def initialise(  # noqa: PLR0913 - one parameter an option
    root: Path,
    *,
    hosts: Sequence[str] = (),
    port: int | None = None,
    nodes: Sequence[str] = (),
    federation: str | None = None,
    authority: tuple[Path, Path] | None = None,
) -> list[Step]:
    """Writes what `root` lacks: authority, server certificate, identities, mosquitto.conf, ACL, aggregator.toml.

    Args:
        root: made when it does not exist.
        hosts: names and addresses by which gateways reach the broker, besides localhost. The first one given
            opens the listener to the network; without any it is bound to 127.0.0.1.
        port: of the listener; when None 8883, or what it was.
        nodes: who else gets an identity.
        federation: of the aggregator beside the broker; when None plant, or what it was.
        authority: certificate and key of a CA to be used, for a folder that has none; when None one is made.

    Returns:
        what was written or left alone, in the order in which it lies in the folder.

    Raises:
        ConfigError: a name that is not allowed, a folder that holds other things, files that are damaged.
    """
    hosts = [check_host(host) for host in hosts]
    nodes = [check_node_name(node) for node in nodes]
    now = datetime.now(UTC)
    Topics(federation or beside.DEFAULT_FEDERATION)
    with opened_for_writing(root) as folder:
        signs, steps = _authority(folder, authority, now)
        steps.append(_server(folder, signs, hosts, now))
        steps.extend(_identity(folder, signs, name, now) for name in _unique((*STANDING_IDENTITIES, *nodes)))
        _pin_aggregator(folder)
        steps.append(_configuration(folder, hosts, port))
        steps.append(_acl(folder))
        steps.append(_revocation_list(folder, signs, now))
        steps.append(_aggregator(folder, federation, root))
        folder.data.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    return steps


def _authority(folder: BrokerFolder, brought: tuple[Path, Path] | None, now: datetime) -> tuple[KeyPair, list[Step]]:
    path = folder.ca_key.parent
    if path.exists():
        present = read_key_pair(folder.ca_certificate, folder.ca_key)
        if brought and read_certificate(brought[0]) != present.certificate:
            raise ConfigError(f"{path}: holds another authority", "set up the broker anew in another folder")
        return present, [Step(path, "kept")]
    authority = read_authority(*brought, now) if brought else new_authority(now)
    _write_key_pair(path, "ca", authority)
    return authority, [Step(path, "written; whoever has ca.key can let anybody in, so it stays here")]


def _server(folder: BrokerFolder, authority: KeyPair, hosts: Sequence[str], now: datetime) -> Step:
    path = folder.server_key.parent
    if not path.exists():
        named = _unique((*hosts, *ALWAYS_NAMED))
        _write_key_pair(path, "server", issue_server(authority, named, now))
        return Step(path, f"written for {', '.join(named)}")
    present = read_key_pair(folder.server_certificate, folder.server_key)
    before = server_hosts(present.certificate)
    named = _unique((*before, *hosts))
    if named == before:
        return Step(path, f"kept, for {', '.join(before)}")
    renewed = issue_server(authority, named, now, present.key)
    replace_file(folder.server_certificate, renewed.certificate_pem, PUBLIC_FILE)
    return Step(path, f"certificate renewed for {', '.join(named)}; the key is the same; restart the broker")


def _identity(folder: BrokerFolder, authority: KeyPair, name: str, now: datetime) -> Step:
    files = folder.identity(name)
    path = files.key.parent
    if folder.enrolled_certificate(name).is_file():
        return Step(folder.enrolled_certificate(name), "kept; it made its own key")
    if path.exists():
        missing = [file.name for file in (files.ca, files.certificate, files.key) if not file.is_file()]
        if missing:
            raise ConfigError(
                f"{path}: lacks {', '.join(missing)}", "put it back, or remove the folder and run init again"
            )
        read_certificate(files.certificate)
        return Step(path, "kept")
    _write_key_pair(path, name, issue_identity(authority, name, now), authority)
    return Step(path, "written" if name in STANDING_IDENTITIES else f"written; copy this folder to {name}")


def _pin_aggregator(folder: BrokerFolder) -> None:
    """Says in every identity which aggregator is to be believed."""
    pin = f"{aggregator_pin(folder)}\n".encode("ascii")
    for name in folder.identity_names():
        path = folder.identity(name).key.with_name(PINS_FILE)
        if not path.is_file() or path.read_bytes() != pin:
            replace_file(path, pin, PUBLIC_FILE)


def _configuration(folder: BrokerFolder, hosts: Sequence[str], port: int | None) -> Step:
    path = folder.configuration
    reachable = any(not is_loopback(host) for host in hosts)
    if not path.exists():
        listener = Listener(port or DEFAULT_PORT, "" if reachable else "127.0.0.1")
        replace_file(path, configuration(folder, listener).encode(), PUBLIC_FILE)
        return Step(path, f"written; port {listener.port} on {listener.address or 'every address'}")
    text = path.read_text(encoding="utf-8")
    before = (listeners(text) or [Listener(DEFAULT_PORT, "127.0.0.1")])[0]
    listener = Listener(port or before.port, "" if reachable else before.address)
    checked = with_revocation_list(text, folder)
    if listener == before:
        if checked == text:
            return Step(path, "kept")
        replace_file(path, checked.encode(), PUBLIC_FILE)
        return Step(path, "now names the revocation list; restart the broker")
    replace_file(path, with_listener(checked, listener).encode(), PUBLIC_FILE)
    return Step(path, f"now port {listener.port} on {listener.address or 'every address'}; restart the broker")


def _aggregator(folder: BrokerFolder, federation: str | None, root: Path) -> Step:
    path = folder.aggregator_configuration
    found = listeners(folder.configuration.read_text(encoding="utf-8"))
    port = found[0].port if found else DEFAULT_PORT
    if not path.exists():
        name = federation or beside.DEFAULT_FEDERATION
        replace_file(path, beside.configuration(folder, name, port).encode(), PUBLIC_FILE)
        return Step(path, f"written; the federation is {name}")
    if federation is not None:
        beside.require_same(folder, federation, root)
    text = path.read_text(encoding="utf-8")
    if beside.with_port(text, port) == text:
        return Step(path, "kept")
    replace_file(path, beside.with_port(text, port).encode(), PUBLIC_FILE)
    return Step(path, f"now port {port}; restart the aggregator")


def _acl(folder: BrokerFolder) -> Step:
    if folder.acl.exists():
        return Step(folder.acl, "kept")
    # Mosquitto 2.1 asks that nobody else may read it.
    replace_file(folder.acl, standing_rules().encode(), PRIVATE_FILE)
    return Step(folder.acl, "written")


def _revocation_list(folder: BrokerFolder, authority: KeyPair, now: datetime) -> Step:
    members = read_members(folder)
    out = tuple(name for name in members.out if not folder.identity(name).key.is_file())
    if folder.crl.exists() and out == members.out:
        return Step(folder.crl, "kept")
    write_members(folder, authority, msgspec.structs.replace(members, out=out), now)
    return Step(folder.crl, "written")


def _write_key_pair(path: Path, name: str, pair: KeyPair, authority: KeyPair | None = None) -> None:
    with new_folder(path) as staging:
        if authority:
            write_new(staging / "ca.crt", authority.certificate_pem, PUBLIC_FILE)
        write_new(staging / f"{name}.crt", pair.certificate_pem, PUBLIC_FILE)
        write_new(staging / f"{name}.key", pair.key_pem, PRIVATE_FILE)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
