"""`fieldfold broker invite, site, revoke, list, renew, doctor, export`: who may connect, and what each may do."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from broker_config.export import EXPORTS
from broker_config.federation import federation_of
from broker_config.folder import BrokerFolder, existing_folder
from broker_config.rights import Role
from broker_config.rights import site as site_role
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket
from fieldfold.errors import ConfigError, ControlError
from fieldfold.findings import verdict
from fieldfold.wire.topics import Topics

LIFE = "24h"
STANDARD_FOLDER = Path("/etc/fieldfold/broker")

_DIR = click.Path(path_type=Path)
_FOLDER = click.option(
    "--folder",
    type=_DIR,
    envvar="FIELDFOLD_BROKER",
    help=f"The broker's folder.  [default: where you stand, else {STANDARD_FOLDER}]",
)


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.option("--federation", metavar="NAME", help="The one to join.  [default: that of DIR/aggregator.toml]")
@click.option("--expires", default=LIFE, show_default=True, metavar="TIME", help="30m, 24h, 7d: the code's life.")
@click.option("--host", metavar="NAME_OR_IP", help="How the gateway reaches the broker.")
@click.option("--again", is_flag=True, help="NODE has a certificate; it ends when the new one is signed.")
@_FOLDER
def invite(  # noqa: PLR0913 - one parameter an option
    nodes: tuple[str, ...],
    federation: str | None,
    expires: str,
    host: str | None,
    folder: Path | None,
    *,
    again: bool,
) -> None:
    """Print a code with which one gateway enrols once, as NODE; of several, a line each: NODE CODE.

    The code is as good as a key until it is used: send it over a channel that you trust.
    """
    from broker_config import invite as room  # noqa: PLC0415 - only these commands need cryptography
    from broker_config.members import read_members  # noqa: PLC0415

    root, lifetime = chosen(folder), room.duration(expires)
    former = set(nodes) & set(read_members(existing_folder(root)).out)
    for node in nodes:
        code = room.invite(root, room.Guest(node, federation, host), lifetime, again=again)
        click.echo(code if len(nodes) == 1 else f"{node} {code}")
        if sys.stdout.isatty():
            _show_qr(code)
    click.echo(f"\nOn {', '.join(nodes)}, within {expires}: fieldfold node enroll CODE --run", err=True)
    for node in sorted(former):
        click.echo(f"{node} was revoked; when it has joined: fieldfold aggregator readmit {node}", err=True)


def _show_qr(code: str) -> None:
    """Where somebody sits before a terminal that is large enough; else why there is none."""
    from broker_config.qr import drawn  # noqa: PLC0415 - scripts do without

    try:
        click.echo(drawn(code, shutil.get_terminal_size()))
    except ConfigError as error:
        click.echo(str(error), err=True)


def invitation_for(node: str, root: Path) -> str:
    """What `fieldfold broker init --invite` says to do on a gateway."""
    from broker_config import invite as room  # noqa: PLC0415 - see above

    code = room.invite(root, room.Guest(node), room.duration(LIFE))
    return f"\nOn {node}, within {LIFE}: fieldfold node enroll {code} --run"


@click.command()
@click.argument("name")
@click.option("--carries", multiple=True, metavar="NODE", help="A gateway that connects there; name them all.")
@click.option("--host", "hosts", multiple=True, metavar="NAME_OR_IP", help="How gateways reach the site's broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True, help="Where that listens.")
@click.option("--at", type=_DIR, default=STANDARD_FOLDER, show_default=True, help="Where its folder will lie there.")
@click.option("--centre", metavar="NAME_OR_IP", help="How the site reaches this broker.")
@click.option("--federation", metavar="NAME", help="The gateways'.  [default: that of DIR/aggregator.toml]")
@_FOLDER
def site(  # noqa: PLR0913, PLR0917 - one parameter an option
    name: str,
    carries: tuple[str, ...],
    hosts: tuple[str, ...],
    port: int,
    at: Path,
    centre: str | None,
    federation: str | None,
    folder: Path | None,
) -> None:
    """Write the folder of a broker for a site, NAME, that carries for its gateways and reaches this one.

    Said again it keeps keys, gateways and host names, and writes the rest anew.
    """
    from broker_config import site as room  # noqa: PLC0415 - see invite

    made = room.establish(
        chosen(folder), name, room.Place(at, port, centre), carries=carries, hosts=hosts, federation=federation
    )
    click.echo(f"{made}  written; copy it to {name}, as {at}")
    click.echo(f"\nThere: fieldfold broker run {shlex.quote(str(at))}")


@click.command("sign")
@click.argument("node")
@click.argument("request", type=_DIR)
@_FOLDER
def sign_request(node: str, request: Path, folder: Path | None) -> None:
    """Print the certificate for a REQUEST (PEM) whose key lies in a TPM, a smart card or another program."""
    from broker_config import sign as room  # noqa: PLC0415 - see invite

    click.echo(room.sign(chosen(folder), node, request), nl=False)


@click.command()
@click.argument("name")
@_FOLDER
def revoke(name: str, folder: Path | None) -> None:
    """Throw NAME out: its certificates, its invitations, its sessions."""
    from broker_config import revoke as room  # noqa: PLC0415 - see invite
    from broker_config.members import read_members  # noqa: PLC0415

    root = chosen(folder)
    is_node = name not in room.REVOCABLE_STANDING and not read_members(existing_folder(root)).site(name)
    count = room.revoke(root, name)
    click.echo(f"{name}: {count} certificate{'s' if count > 1 else ''} revoked")
    click.echo(
        "A broker that `fieldfold broker run` started ends its sessions now; another one needs SIGHUP and a restart."
    )
    if is_node:
        click.echo(_told_the_aggregator(name))


def _told_the_aggregator(node: str) -> str:
    """The aggregator beside the broker writes it into its ledger, and takes nothing more of the node."""
    try:
        with ControlClient(running_socket("aggregator")) as client:
            return f"The aggregator: {client.command('revoke', node=node)}"
    except ControlError as error:
        return f"The aggregator does not know of it ({error}). Where it runs: fieldfold aggregator exclude {node}"


@click.command("list")
@click.argument("folder", metavar="[DIR]", type=_DIR, required=False)
def list_members(folder: Path | None) -> None:
    """Show who may connect and until when, who is invited, and who was revoked."""
    from broker_config.members import read_members  # noqa: PLC0415 - see invite

    found = existing_folder(chosen(folder))
    rows = [(name, *_validity(path)) for name, path in certificates(found).items()]
    members = read_members(found)
    carried = {each.name: f", carries {', '.join(members.carried_by(each))}" for each in members.sites}
    rows = [(name, day, words + carried.get(name, "")) for name, day, words in rows]
    now_s = datetime.now(UTC).timestamp()
    rows.extend(
        (invitation.node, _day(invitation.expires_s), "invited")
        for invitation in members.without_expired(now_s).invitations
        if not invitation.request
    )
    last = {each.name: each.since_s for each in members.revoked}
    rows.extend(
        (name, _day(last[name]), "REVOKED") if name in last else (name, "-", "REVOKED") for name in members.out
    )
    width = max(len(name) for name, _, _ in rows)
    for name, day, words in rows:
        click.echo(f"{name:<{width}}  {day}  {words}")


@click.command()
@click.argument("folder", metavar="[DIR]", type=_DIR, required=False)
@click.option("--all", "everything", is_flag=True, help="Also what is good for long.")
def renew(folder: Path | None, *, everything: bool) -> None:
    """Renew the certificates beside the broker that end within 60 days; keys stay."""
    from broker_config import renew as room  # noqa: PLC0415 - see invite

    root = chosen(folder)
    for name in room.renew(root, everything=everything):
        click.echo(f"{name}  renewed")
    ending = [
        name
        for name in BrokerFolder(root.absolute()).enrolled_names()
        if everything or "renew" in _validity(BrokerFolder(root.absolute()).enrolled_certificate(name))[1]
    ]
    for name in ending:
        click.echo(f"{name}  asks by itself when it is connected; else: fieldfold broker invite {name} --again")


@click.command()
@click.argument("folder", metavar="[DIR]", type=_DIR, required=False)
def doctor(folder: Path | None) -> None:
    """Look at keys, certificates, settings, access rules and the running broker; exit code 1 where one is wrong."""
    from broker_config.doctor import examine  # noqa: PLC0415 - see invite

    sys.exit(verdict(examine(chosen(folder)), click.echo))


@click.command()
@click.argument("folder", metavar="[DIR]", type=_DIR, required=False)
@click.option("--for", "broker", type=click.Choice(list(EXPORTS)), required=True, help="Which broker.")
@click.option("--federation", metavar="NAME", help="Whose.  [default: that of DIR/aggregator.toml]")
def export(folder: Path | None, broker: str, federation: str | None) -> None:
    """Print the access rules, and what else differs, in the words of another broker than Mosquitto."""
    root = chosen(folder)
    name = federation_of(existing_folder(root)) if federation is None else federation
    Topics(name)
    click.echo(EXPORTS[broker](name, _sites(root, name)), nl=False)


def _sites(root: Path, federation: str) -> list[Role]:
    """What the site's brokers of a federation may do, where the books are at hand."""
    if not (root / "members.json").is_file():
        return []
    from broker_config.members import read_members  # noqa: PLC0415 - see invite

    members = read_members(existing_folder(root))
    return [site_role(each.name, members.carried_by(each)) for each in members.sites if each.federation == federation]


def chosen(folder: Path | None) -> Path:
    """The folder that was named, or the one we stand in, or the standard one."""
    if folder is not None:
        return folder
    here = Path(os.curdir)
    return here if (here / "mosquitto.conf").is_file() else STANDARD_FOLDER


def certificates(folder: BrokerFolder) -> dict[str, Path]:
    """Every certificate in the folder by its name, the authority's and the broker's first."""
    return {
        "(authority)": folder.ca_certificate,
        "(broker)": folder.server_certificate,
        **{name: folder.identity(name).certificate for name in folder.identity_names()},
        **{name: folder.enrolled_certificate(name) for name in folder.enrolled_names()},
    }


def _validity(path: Path) -> tuple[str, str]:
    """The day on which a certificate ends, and how long that is."""
    from broker_config.certificates import read_certificate  # noqa: PLC0415 - see invite
    from broker_config.renew import RENEW_WITHIN  # noqa: PLC0415

    expires = read_certificate(path).not_valid_after_utc
    remaining = expires - datetime.now(UTC)
    if remaining <= timedelta(0):
        return f"{expires:%Y-%m-%d}", "EXPIRED, renew"
    return f"{expires:%Y-%m-%d}", f"{remaining.days} days left" + (", renew soon" if remaining < RENEW_WITHIN else "")


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
