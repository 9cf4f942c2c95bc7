"""`fieldfold broker site`: the folder of a broker of its own for a site, and its one identity at this one.

The folder holds all that Mosquitto needs there, and no authority: it lets nobody in whom this broker did not sign,
and carries only what the gateways sign themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker_config.acl import site_rules
from broker_config.bridge import bridge
from broker_config.certificates import (
    ALWAYS_NAMED,
    KeyPair,
    check_host,
    issue_identity,
    issue_server,
    read_certificate,
    read_key_pair,
    server_hosts,
)
from broker_config.federation import federation_of
from broker_config.folder import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    PUBLIC_FILE,
    BrokerFolder,
    new_folder,
    replace_file,
    write_new,
)
from broker_config.initialise import is_loopback
from broker_config.invite import broker_address
from broker_config.members import Members, Site, changing, read_members, write_members
from broker_config.mosquitto import Listener, configuration
from broker_config.renew import is_ending
from broker_config.rights import site as site_role
from fieldfold.errors import ConfigError
from fieldfold.wire.topics import Topics, check_node_name

MAX_CARRIED = 1000
"""Each is a dozen lines that two Mosquittos read."""


@dataclass(frozen=True)
class Place:
    """Where a site's broker will be.

    Attributes:
        folder: its own folder on its own machine, absolute.
        port: where it listens.
        centre: how it reaches this broker; None takes the first name in this broker's certificate.
    """

    folder: Path
    port: int
    centre: str | None = None


def establish(  # noqa: PLR0913 - one parameter an option
    root: Path,
    name: str,
    place: Place,
    *,
    carries: Sequence[str] = (),
    hosts: Sequence[str] = (),
    federation: str | None = None,
) -> Path:
    """Gives the site its rights at this broker and writes its folder, to be copied to `place.folder` there.

    Said again it keeps the keys, and whatever is not given.

    Args:
        root: the folder of the broker at the centre.
        name: of the site's identity.
        place: where its broker will be.
        carries: the gateways for which it may speak and hear, all of them.
        hosts: how those reach it, besides localhost.
        federation: theirs; when None that of the aggregator beside this broker.

    Returns:
        the folder to be copied.

    Raises:
        ConfigError: a name that is not allowed or taken, or a folder that is not fit.
    """
    check_node_name(name)
    hosts = [check_host(host) for host in hosts]
    now = datetime.now(UTC)
    if not place.folder.is_absolute() or not str(place.folder).isprintable():
        raise ConfigError(f"{str(place.folder)!r}: is no place for a broker's folder", "give an absolute path")
    with changing(root) as (folder, authority):
        members = read_members(folder)
        asked = Site(name=name, federation=federation or "", carries=tuple(carries), hosts=tuple(hosts))
        wanted = _wanted(folder, members, asked)
        # Mosquitto takes an IPv6 address of a bridge without brackets, as ::1:8883.
        centre = broker_address(folder, place.centre).replace("[", "").replace("]", "")
        copied = BrokerFolder(folder.identities / name)
        _write_keys(copied, wanted, authority, now)
        others = tuple(site for site in members.sites if site.name != name)
        out = tuple(each for each in members.out if each != name)
        members = msgspec.structs.replace(members, sites=(*others, wanted), out=out)
        write_members(folder, authority, members, now)
        _write_settings(copied, wanted, members, place, centre)
        replace_file(copied.crl, folder.crl.read_bytes(), PUBLIC_FILE)
    return copied.root


def _wanted(folder: BrokerFolder, members: Members, asked: Site) -> Site:
    """What was asked for, completed by what was known of the site, where nothing speaks against it."""
    former = members.site(asked.name)
    carries = asked.carries or (former.carries if former else ())
    federation = asked.federation or (former.federation if former else federation_of(folder))
    Topics(federation)
    if not carries:
        raise ConfigError(f"{asked.name} carries for nobody", "name its gateways: --carries NODE")
    if len(carries) > MAX_CARRIED:
        raise ConfigError(f"{len(carries)} gateways are too many for one site", f"{MAX_CARRIED} at most")
    _require_free_name(folder, members, asked.name)
    for node in map(check_node_name, carries):
        if node == asked.name or members.site(node):
            raise ConfigError(f"{node} is a site's broker", "name gateways: --carries NODE")
        for site in members.sites:
            if site.name != asked.name and node in site.carries:
                raise ConfigError(f"{node} is carried by {site.name}", "a gateway belongs to one site")
    hosts = asked.hosts or (former.hosts if former else ())
    return Site(name=asked.name, federation=federation, carries=tuple(dict.fromkeys(carries)), hosts=hosts)


def _require_free_name(folder: BrokerFolder, members: Members, name: str) -> None:
    place = folder.identities / name
    is_invited = any(each.node == name for each in members.invitations)
    is_node = place.exists() and not BrokerFolder(place).server_key.is_file()
    if is_invited or is_node or folder.enrolled_certificate(name).is_file():
        raise ConfigError(f"{name} is the name of a gateway here", "choose another, for example site-north")


def _write_keys(copied: BrokerFolder, site: Site, authority: KeyPair, now: datetime) -> None:
    hosts = list(dict.fromkeys((*site.hosts, *ALWAYS_NAMED)))
    if not copied.root.exists():
        identity, server = issue_identity(authority, site.name, now), issue_server(authority, hosts, now)
        with new_folder(copied.root) as staging:
            made = BrokerFolder(staging)
            for folder in (made.ca_certificate.parent, made.server_key.parent, made.data):
                folder.mkdir(mode=PRIVATE_FOLDER)
            write_new(made.ca_certificate, authority.certificate_pem, PUBLIC_FILE)
            write_new(staging / "ca.crt", authority.certificate_pem, PUBLIC_FILE)
            write_new(staging / f"{site.name}.crt", identity.certificate_pem, PUBLIC_FILE)
            write_new(staging / f"{site.name}.key", identity.key_pem, PRIVATE_FILE)
            write_new(made.server_certificate, server.certificate_pem, PUBLIC_FILE)
            write_new(made.server_key, server.key_pem, PRIVATE_FILE)
        return
    present = read_certificate(copied.server_certificate)
    if server_hosts(present) != hosts or is_ending(present, now):
        key = read_key_pair(copied.server_certificate, copied.server_key).key
        renewed = issue_server(authority, hosts, now, key)
        replace_file(copied.server_certificate, renewed.certificate_pem, PUBLIC_FILE)


def _write_settings(copied: BrokerFolder, site: Site, members: Members, place: Place, centre: str) -> None:
    nodes = members.carried_by(site)
    is_reachable = any(not is_loopback(host) for host in site.hosts)
    listener = Listener(place.port, "" if is_reachable else "127.0.0.1")
    text = configuration(BrokerFolder(place.folder), listener)
    text += bridge(site_role(site.name, nodes), site.federation, centre, place.folder)
    replace_file(copied.configuration, text.encode(), PUBLIC_FILE)
    replace_file(copied.acl, site_rules(nodes, site.federation).encode(), PRIVATE_FILE)
