"""`fieldfold broker`: set up a broker, start it, see who may connect."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from broker_config.embedded import DEFAULT_PORT as EMBEDDED_PORT
from broker_config.embedded import WARNING, run_embedded
from broker_config.folder import BrokerFolder, existing_folder
from broker_config.members_cli import (
    doctor,
    export,
    invitation_for,
    invite,
    list_members,
    renew,
    revoke,
    sign_request,
    site,
)
from broker_config.mosquitto import command_line, find_mosquitto, listeners
from broker_config.ports import require_free
from fieldfold.errors import ConfigError

_FOLDER = click.Path(path_type=Path)
_PORT = click.IntRange(1, 65535)


@click.group()
def broker() -> None:
    """Set up a broker with certificates and access rules, and start it."""


@broker.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--host", "hosts", multiple=True, metavar="NAME_OR_IP", help="How gateways reach the broker.")
@click.option("--port", type=_PORT, help="Where it listens.  [default: 8883]")
@click.option("--federation", metavar="NAME", help="Of the aggregator beside the broker.  [default: plant]")
@click.option("--invite", "invited", multiple=True, metavar="NAME", help="A gateway for which to print a code.")
@click.option("--ca-cert", type=_FOLDER, help="A CA of your own (PEM), which signs itself.  [default: one is made]")
@click.option("--ca-key", type=_FOLDER, help="Its key, without a passphrase; a copy comes to lie in DIR.")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="A gateway whose key is made here, to copy.")
def init(  # noqa: PLR0913, PLR0917 - one parameter an option
    folder: Path,
    hosts: tuple[str, ...],
    port: int | None,
    federation: str | None,
    invited: tuple[str, ...],
    ca_cert: Path | None,
    ca_key: Path | None,
    nodes: tuple[str, ...],
) -> None:
    """Write certificates, mosquitto.conf, access rules and aggregator.toml into DIR.

    Say it again with more --host, --invite or --node whenever you like: what is there is kept, keys above all.
    Without --host the broker can be reached from this machine only.
    """
    # Imported here: only this command needs cryptography, a gateway's environment does without.
    from broker_config.initialise import initialise  # noqa: PLC0415

    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key go together")
    brought = (ca_cert, ca_key) if ca_cert is not None and ca_key is not None else None
    for step in initialise(folder, hosts=hosts, port=port, nodes=nodes, federation=federation, authority=brought):
        click.echo(f"{_below(folder, step.path)}  {step.outcome}")
    click.echo(f"\nNext: fieldfold broker run {shlex.quote(str(folder))}")
    click.echo(f"      fieldfold aggregator run --config {shlex.quote(str(folder / 'aggregator.toml'))}")
    for name in invited:
        click.echo(invitation_for(name, folder))


@broker.command()
@click.argument("folder", metavar="DIR", type=_FOLDER, required=False)
@click.option("--embedded", is_flag=True, help="Start the embedded broker, though Mosquitto may be there.")
@click.option("--port", type=_PORT, help=f"Embedded: the port of MQTT 5.  [default: {EMBEDDED_PORT}]")
@click.option("--port-v311", type=_PORT, help="Embedded: the port of MQTT 3.1.1.  [default: the one after]")
def run(folder: Path | None, port: int | None, port_v311: int | None, *, embedded: bool) -> None:
    """Start the broker of DIR in the foreground: Mosquitto where it is installed, else the embedded one."""
    if not embedded:
        if folder is None:
            raise click.UsageError("name the folder that `fieldfold broker init` wrote, or use --embedded")
        _exec_mosquitto(existing_folder(folder), port or port_v311)
        click.echo("Mosquitto is not installed here (apt install mosquitto).", err=True)
    click.echo(WARNING, err=True)
    first = port or EMBEDDED_PORT
    run_embedded(first, port_v311 or first + 1, click.echo)


def _exec_mosquitto(folder: BrokerFolder, port: int | None) -> None:
    """Becomes Mosquitto; returns only when there is none."""
    program = find_mosquitto()
    if program is None:
        return
    if port is not None:
        raise ConfigError(
            "--port is for the embedded broker", f"fieldfold broker init {folder.root} --port {port} moves Mosquitto"
        )
    remedy = f"stop it, or choose another port: fieldfold broker init {folder.root} --port N"
    command = command_line(program, folder)
    for listener in listeners(folder.configuration.read_text(encoding="utf-8")):
        require_free(listener.port, listener.address, remedy)
        click.echo(f"{program}: port {listener.port} on {listener.address or 'every address'}")
    if folder.ca_key.is_file():  # a site's broker has no authority, and so nothing to take care of
        from broker_config.caretaker import start_beside  # noqa: PLC0415 - see init

        start_beside(folder, listeners(folder.configuration.read_text(encoding="utf-8"))[0])
    os.execv(program, command)  # noqa: S606 - our own argument list, no shell


def _below(folder: Path, path: Path) -> str:
    return str(folder / path.relative_to(folder.absolute()))


for command in (invite, site, sign_request, revoke, list_members, renew, doctor, export):
    broker.add_command(command)
