"""Who was invited, who was thrown out: the books of a broker's folder, and the rules that Mosquitto reads from them.

The books (members.json) are the truth; the CRL and the end of the ACL are written from them, each time anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker_config.acl import patterns, user
from broker_config.certificates import KeyPair, read_certificate, read_key_pair, revocation_list
from broker_config.folder import PRIVATE_FILE, PUBLIC_FILE, BrokerFolder, opened_for_writing, replace_file
from broker_config.rights import CARETAKER, RENEWAL
from broker_config.rights import site as site_role
from fieldfold.errors import ConfigError
from fieldfold.trust.invitation import USER_PREFIX, InvitationId
from fieldfold.wire.messages import Name
from fieldfold.wire.topics import Topics

GENERATED = (
    "# -- From here on written by fieldfold: invitations and who was revoked. What stands above is yours. --\n"
)


class OpenInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """One code that was given out.

    Attributes:
        serial: of the invitation's own certificate, in hex.
        secret: what both ends authenticate with, in hex.
        failures: requests that were not authentic.
        request: SHA-256 of the csr that was signed; empty until then. The same one is answered again.
        replaces: serial numbers of the certificates that end when a new one is signed.
    """

    id: InvitationId
    node: Name
    federation: Name
    expires_s: int
    serial: str
    secret: str
    failures: int = 0
    request: str = ""
    replaces: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The common name of its certificate."""
        return f"{USER_PREFIX}{self.id}"


class Revocation(msgspec.Struct, frozen=True):
    """A certificate that is no longer good; `serial` in hex, `since_s` in seconds since the epoch."""

    serial: str
    name: str
    since_s: int


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A plant site with a broker of its own.

    Attributes:
        name: of its one identity at this broker.
        carries: the gateways for which it may speak and hear.
        hosts: how those reach it.
    """

    name: Name
    federation: Name
    carries: tuple[Name, ...]
    hosts: tuple[str, ...]


class Members(msgspec.Struct, frozen=True):
    """The books.

    Attributes:
        invitations: given out and not expired, used ones among them.
        revoked: what stands on the CRL.
        out: names that nobody may bear now.
        earlier: certificates that were renewed and are good all the same until they end, by serial number.
        sites: brokers that carry for others.
    """

    invitations: tuple[OpenInvitation, ...] = ()
    revoked: tuple[Revocation, ...] = ()
    out: tuple[Name, ...] = ()
    earlier: dict[str, Name] = {}
    sites: tuple[Site, ...] = ()

    def site(self, name: str) -> Site | None:
        """The site of this name."""
        return next((each for each in self.sites if each.name == name), None)

    def carried_by(self, site: Site) -> tuple[Name, ...]:
        """The gateways of a site that were not thrown out."""
        return tuple(name for name in site.carries if name not in self.out)

    def invitation(self, identifier: str) -> OpenInvitation | None:
        """The invitation with this id, also when it was used."""
        return next((each for each in self.invitations if each.id == identifier), None)

    def with_invitation(self, invitation: OpenInvitation) -> Members:
        """With one invitation added, or exchanged for its newer self."""
        others = tuple(each for each in self.invitations if each.id != invitation.id)
        return msgspec.structs.replace(self, invitations=(*others, invitation))

    def without_invitations_of(self, node: str, now_s: float) -> Members:
        """With the invitations of `node` withdrawn, and their certificates on the list."""
        members = self
        for each in self.invitations:
            if each.node == node:
                members = members.with_revoked((each.serial,), each.user, now_s)
        others = tuple(each for each in self.invitations if each.node != node)
        return msgspec.structs.replace(members, invitations=others)

    def without_expired(self, now_s: float) -> Members:
        """Without the invitations that nobody can use any more."""
        kept = tuple(each for each in self.invitations if each.expires_s > now_s)
        return msgspec.structs.replace(self, invitations=kept)

    def with_revoked(self, serials: Iterable[str], name: str, now_s: float) -> Members:
        """With these certificates on the list; those that stand there stay as they are."""
        known = {each.serial for each in self.revoked}
        added = tuple(Revocation(serial, name, int(now_s)) for serial in serials if serial not in known)
        return msgspec.structs.replace(self, revoked=(*self.revoked, *added))


def read_members(folder: BrokerFolder) -> Members:
    """The books as they are on the disk; empty where nobody was invited yet.

    Raises:
        ConfigError: when they cannot be read.
    """
    try:
        return msgspec.json.decode(folder.members.read_bytes(), type=Members)
    except FileNotFoundError:
        return Members()
    except OSError as error:
        raise ConfigError(f"{folder.members}: cannot be read: {error.strerror}", "check its owner") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder.members}: is damaged: {error}", "put back a backup") from None


@contextmanager
def changing(root: Path) -> Iterator[tuple[BrokerFolder, KeyPair]]:
    """Holds the folder against other writers; gives the authority that signs.

    Raises:
        ConfigError: the folder is no broker's, was made by an older fieldfold, or its authority cannot be read.
    """
    if not (root / "mosquitto.conf").is_file():
        raise ConfigError(f"{root}: is not a broker's folder", f"fieldfold broker init {root}")
    with opened_for_writing(root) as folder:
        if not folder.crl.is_file():
            raise ConfigError(
                f"{root}: has no revocation list", f"fieldfold broker init {root}, then restart the broker"
            )
        yield folder, read_key_pair(folder.ca_certificate, folder.ca_key)


def write_members(folder: BrokerFolder, authority: KeyPair, members: Members, now: datetime) -> None:
    """Writes the books, then what Mosquitto reads; a kill between the two is made good by the next writing."""
    members = members.without_expired(now.timestamp())
    replace_file(folder.members, msgspec.json.format(msgspec.json.encode(members)), PRIVATE_FILE)
    since = {int(each.serial, 16): datetime.fromtimestamp(each.since_s, UTC) for each in members.revoked}
    replace_file(folder.crl, revocation_list(authority, since, now), PUBLIC_FILE)
    text = folder.acl.read_text(encoding="utf-8")
    replace_file(folder.acl, with_members(text, members).encode(), PRIVATE_FILE)


def with_members(acl: str, members: Members) -> str:
    """The access rules with their end written anew; what a person wrote above it stays."""
    own = acl.partition(GENERATED)[0].rstrip("\n")
    rules = f"{patterns(RENEWAL)}\n{user(CARETAKER)}"
    sites = ["\n" + user(site_role(site.name, members.carried_by(site)), site.federation) for site in members.sites]
    return "".join(
        (f"{own}\n\n{GENERATED}\n{rules}", *sites, *map(_invited, members.invitations), *map(_out, members.out))
    )


def serials_of(folder: BrokerFolder, members: Members, name: str) -> tuple[str, ...]:
    """The serial numbers, in hex, of every certificate by which somebody can be `name` at this moment."""
    paths = (folder.identity(name).certificate, folder.enrolled_certificate(name))
    present = [serial_of(path) for path in paths if path.is_file()]
    revoked = {each.serial for each in members.revoked}
    earlier = [serial for serial, bearer in members.earlier.items() if bearer == name and serial not in revoked]
    return (*present, *earlier)


def serial_of(path: Path) -> str:
    """The serial number of a certificate, in hex."""
    return f"{read_certificate(path).serial_number:x}"


def _invited(invitation: OpenInvitation) -> str:
    topics = Topics(invitation.federation)
    expires = datetime.fromtimestamp(invitation.expires_s, UTC)
    return (
        f"\n# Until {expires:%Y-%m-%d %H:%M} UTC, to become {invitation.node}.\n"
        f"user {invitation.user}\n"
        f"topic write {topics.enrolment_request(invitation.id)}\n"
        f"topic read {topics.enrolment_answer(invitation.id)}\n"
    )


def _out(name: str) -> str:
    return f"\nuser {name}\ntopic deny fieldfold/#\n"
