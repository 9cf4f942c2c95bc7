"""`fieldfold broker revoke`: a name is worth nothing any more, from this moment on."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker_config.members import changing, read_members, serials_of, write_members
from fieldfold.errors import ConfigError
from fieldfold.wire.topics import check_node_name

REVOCABLE_STANDING = ("aggregator", "observer")


def revoke(root: Path, name: str) -> int:
    """Puts every certificate and open invitation of `name` on the CRL and shuts the name out; how many there were.

    The caretaker of a running broker ends its sessions within a second or two. A new invitation, or for an identity
    beside the broker `fieldfold broker init --node`, lets a gateway of that name in again.

    Raises:
        ConfigError: nobody of that name has a certificate or an invitation here.
    """
    if name not in REVOCABLE_STANDING:
        check_node_name(name)
    now = datetime.now(UTC)
    with changing(root) as (folder, authority):
        members = read_members(folder)
        held = serials_of(folder, members, name)
        invited = tuple(each for each in members.invitations if each.node == name)
        if not held and not invited:
            hint = f"fieldfold broker list {folder.root} shows who is known"
            raise ConfigError(f"{name} has neither a certificate nor an invitation here", hint)
        members = members.with_revoked(held, name, now.timestamp())
        members = members.without_invitations_of(name, now.timestamp())
        out = tuple(sorted({*members.out, name}))
        sites = tuple(site for site in members.sites if site.name != name)
        write_members(folder, authority, msgspec.structs.replace(members, out=out, sites=sites), now)
        # Last, so that a revoke that was killed can be said again.
        folder.enrolled_certificate(name).unlink(missing_ok=True)
        shutil.rmtree(folder.identities / name, ignore_errors=True)
    return len(held) + len(invited)
