"""`fieldfold broker invite`: a code by which one gateway enrols once, with a key that it makes itself."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.certificates import aggregator_pin, issue_invitation, read_certificate, server_hosts
from broker_config.federation import federation_of
from broker_config.folder import BrokerFolder
from broker_config.initialise import is_loopback
from broker_config.members import OpenInvitation, changing, read_members, serials_of, write_members
from broker_config.mosquitto import listeners
from fieldfold.errors import ConfigError
from fieldfold.trust.invitation import USER_PREFIX, Invitation, shared_secret, write_code
from fieldfold.wire.topics import Topics, check_node_name

LONGEST = timedelta(days=30)
MAX_OPEN = 1000
"""Invitations at one time; each is a few lines that Mosquitto reads."""

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])")


def duration(text: str) -> timedelta:
    """A length of time such as 30m, 24h or 7d.

    Raises:
        ConfigError: for anything else, and for more than LONGEST.
    """
    found = _DURATION.fullmatch(text)
    length = timedelta(seconds=int(found[1]) * _UNITS_S[found[2]]) if found else timedelta(0)
    if not timedelta(0) < length <= LONGEST:
        raise ConfigError(f"{text!r} is no time for an invitation", "for example 30m, 24h or 7d; 30d at most")
    return length


@dataclass(frozen=True)
class Guest:
    """Who is invited, and where to.

    Attributes:
        node: the name that the gateway will bear.
        federation: the one it joins; None takes that of the aggregator beside the broker.
        host: how the gateway reaches the broker; None takes the first name in the broker's certificate.
    """

    node: str
    federation: str | None = None
    host: str | None = None


def invite(root: Path, guest: Guest, lifetime: timedelta, *, again: bool = False) -> str:
    """Makes an invitation and returns its code, which is worth nothing after `lifetime`.

    Args:
        root: the broker's folder.
        guest: who is invited.
        lifetime: how long.
        again: the guest's name has a certificate, which ends when the new one is signed.

    Raises:
        ConfigError: a name that is not allowed or taken, or a folder that is not fit.
    """
    node = check_node_name(guest.node)
    now = datetime.now(UTC)
    with changing(root) as (folder, authority):
        federation = federation_of(folder) if guest.federation is None else guest.federation
        Topics(federation)
        members = read_members(folder).without_expired(now.timestamp())
        held = serials_of(folder, members, node)
        if members.site(node):
            raise ConfigError(f"{node} is a site's broker", f"fieldfold broker site {node} writes its folder")
        if held and not again:
            raise ConfigError(f"{node} has a certificate already", "for another gateway of that name say --again")
        # One at a time for a name, so that no two keys can be signed for it.
        members = members.without_invitations_of(node, now.timestamp())
        if len(members.invitations) >= MAX_OPEN:
            raise ConfigError(f"{MAX_OPEN} invitations are open", "wait until some have expired")
        identifier = base64.b32encode(os.urandom(10)).decode().lower()
        certificate, key = issue_invitation(authority, f"{USER_PREFIX}{identifier}", now, lifetime)
        expires_s = int((now + lifetime).timestamp())
        code = write_code(
            Invitation(
                id=identifier,
                node=node,
                federation=federation,
                url=f"mqtts://{broker_address(folder, guest.host)}",
                expires_s=expires_s,
                ca=authority.certificate.public_bytes(Encoding.DER),
                certificate=certificate.public_bytes(Encoding.DER),
                key=key,
                aggregator=bytes.fromhex(aggregator_pin(folder)),
            )
        )
        given = OpenInvitation(
            id=identifier,
            node=node,
            federation=federation,
            expires_s=expires_s,
            serial=f"{certificate.serial_number:x}",
            secret=shared_secret(key).hex(),
            replaces=held,
        )
        write_members(folder, authority, members.with_invitation(given), now)
    return code


def broker_address(folder: BrokerFolder, host: str | None = None) -> str:
    """`HOST:PORT` by which others reach the broker: a name that its certificate is good for, [] around IPv6.

    Raises:
        ConfigError: the certificate is not for `host`, or the broker has no listener.
    """
    named = server_hosts(read_certificate(folder.server_certificate))
    if host is not None and host not in named:
        raise ConfigError(
            f"the broker's certificate is not for {host}", f"fieldfold broker init {folder.root} --host {host}"
        )
    chosen = host or next((name for name in named if not is_loopback(name)), "localhost")
    found = listeners(folder.configuration.read_text(encoding="utf-8"))
    if not found:
        raise ConfigError(
            f"{folder.configuration}: has no listener", f"fieldfold broker init {folder.root} --port 8883"
        )
    return f"{f'[{chosen}]' if ':' in chosen else chosen}:{found[0].port}"
