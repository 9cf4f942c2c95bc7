"""`fieldfold node`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fieldfold import logs
from fieldfold.cli.figures import number, plain, size
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket
from fieldfold.errors import ControlError
from fieldfold.findings import verdict
from fieldfold.service import end_on_signals, leave
from fieldfold.terminal import opening
from fieldfold.terminal.glyphs import Glyphs
from fieldfold.terminal.multiplexer import has_mouse
from fieldfold.trust.invitation import MAX_CODE_CHARACTERS, read_code

if TYPE_CHECKING:
    from node_app.tui.app import NodeApp
    from node_app.tui.setup.app import SetupApp

FOR_SCRIPTS = "fieldfold node status --watch"
_SOCKET = click.option("--socket", type=click.Path(path_type=Path), help="control socket of the running daemon")


@click.group(invoke_without_command=True)
@_SOCKET
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="of the daemon to start where none runs"
)
@opening.options
@click.pass_context
def node(  # noqa: PLR0913 - options
    context: click.Context,
    socket: Path | None,
    config_path: Path | None,
    theme: str | None,
    glyphs: Glyphs | None,
    *,
    read_only: bool,
) -> None:
    """The daemon on every gateway: trains on its own data, sends updates, adopts the fleet's model.

    Without a subcommand, the screens of the daemon that runs here; leaving them changes nothing. Where none runs, one
    is started with --config, ./node.toml or /etc/fieldfold/node.toml, and goes on when the screens are left. Where
    there is no configuration either, a form asks for what is needed, tests it, and writes ./node.toml.
    """
    if context.invoked_subcommand is None:
        where = _running(socket, config_path, may_start=not read_only)
        opening.show(_app, where, FOR_SCRIPTS, theme=theme, glyphs=glyphs, read_only=read_only)
    elif socket is not None or config_path is not None or read_only or theme or glyphs:
        raise click.UsageError(f"these options are for the screens; give them after {context.invoked_subcommand}")


@node.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="configuration file, for example node.toml",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
def run(config_path: Path, log_level: str, log_format: logs.Format) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    It needs no broker to start: it keeps trying, and keeps what it has.
    """
    # The linear algebra behind numpy would start a thread and a buffer a core; training has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from node_app.config import load  # noqa: PLC0415 - help and status need neither numpy nor the codec
    from node_app.daemon import Daemon  # noqa: PLC0415

    logs.set_up(level=log_level, form=log_format)
    os.umask(0o027)  # what is written is nobody else's to read
    daemon = Daemon(load(config_path), config_path.resolve().parent)
    end_on_signals(daemon.stop)
    daemon.run()
    if not daemon.has_ended:
        leave()  # a graph that is being computed would hold the interpreter's end, or crash in it


@node.command()
@_SOCKET
@click.option("--json", "as_json", is_flag=True, help="everything, as one JSON object")
@click.option("--watch", is_flag=True, help="again and again, until Ctrl-C or the daemon's end")
@click.option("--every", "every_s", type=click.FloatRange(0.1, 3600), default=1.0, help="seconds between two looks")
def status(socket: Path | None, every_s: float, *, as_json: bool, watch: bool) -> None:
    """Say how the node is doing.

    On a terminal --watch writes over what it wrote before; in a pipe it never writes an escape code.
    """
    said = ""
    with ControlClient(socket or running_socket("node")) as client, contextlib.suppress(KeyboardInterrupt):
        for answer in client.watch(every_s) if watch else (client.status(),):
            text = msgspec.json.encode(answer).decode() if as_json else "\n".join(lines(answer))
            in_place = watch and not as_json and sys.stdout.isatty()
            if in_place and said:
                sys.stdout.write(f"\x1b[{said.count(chr(10)) + 1}A\x1b[J")
            said = text
            sys.stdout.write(f"{text}\n" if as_json or in_place or not watch else f"{text}\n\n")
            sys.stdout.flush()


@node.command()
@_SOCKET
def pause(socket: Path | None) -> None:
    """Hold training; the model is followed all the same."""
    _command(socket, "pause")


@node.command()
@_SOCKET
def resume(socket: Path | None) -> None:
    """Go on training, and look again at data that could not be used."""
    _command(socket, "resume")


@node.command()
@click.argument("code", default="-")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("node.toml"),
    show_default=True,
    help="written if it is not there; the folder identity comes to lie beside it",
)
@click.option("--data", default="data/*.csv", show_default=True, help="files to learn from, for the new node.toml")
@click.option("--again", is_flag=True, help="replace the identity that is there")
@click.option("--user", help="whose the identity becomes, when root enrols for a daemon of another user")
@click.option("--run", "then_run", is_flag=True, help="and run the node, as `fieldfold node run` does")
@click.pass_context
def enroll(  # noqa: PLR0913 - options
    context: click.Context,
    code: str,
    config_path: Path,
    data: str,
    user: str | None,
    *,
    again: bool,
    then_run: bool,
) -> None:
    """Join with the CODE of `fieldfold broker invite`; without one it is read from standard input.

    The private key is made here and stays here; what comes back is a certificate for it.
    """
    from node_app.enroll import enroll as join  # noqa: PLC0415 - only this command needs cryptography
    from node_app.enroll import give_to  # noqa: PLC0415

    if then_run and user is not None:
        raise click.UsageError("--run would run as this user; start the daemon as the other one")
    if code == "-":
        code = (
            click.prompt("Code", hide_input=True) if sys.stdin.isatty() else sys.stdin.read(MAX_CODE_CHARACTERS * 2)
        )
    invitation = read_code(code)
    made = join(invitation, config_path, data=data, again=again)
    if user is not None:
        give_to(made.identity, user)
    click.echo(f"{made.identity}  {invitation.node} of {invitation.federation}, good until {made.expires:%Y-%m-%d}")
    click.echo(f"{config_path}  {'written' if made.wrote_configuration else 'kept'}")
    if then_run:
        sys.stdout.flush()
        context.invoke(run, config_path=config_path)
    else:
        click.echo(f"\nNext: fieldfold node run --config {shlex.quote(str(config_path))}")


@node.command()
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=Path("node.toml"), show_default=True
)
def doctor(config_path: Path) -> None:
    """Look at clock, certificate, data, broker and permissions; exit code 1 where one is wrong."""
    from node_app.doctor import examine  # noqa: PLC0415 - help needs neither numpy nor the codec

    sys.exit(verdict(examine(config_path), click.echo))


def _command(socket: Path | None, name: str) -> None:
    with ControlClient(socket or running_socket("node")) as client:
        sys.stdout.write(f"{client.command(name)}\n")


def _running(socket: Path | None, given: Path | None, *, may_start: bool) -> Path:
    """Where a daemon answers, or at least should; one is started where none does and a configuration is there."""
    from node_app import starting  # noqa: PLC0415 - the other commands need no configuration

    if socket is not None:
        return socket
    usual, config_path = running_socket("node"), starting.find(given)
    if given is None and _answers(usual):
        return usual
    if may_start and config_path is None and sys.stdin.isatty() and sys.stdout.isatty():
        config_path = _first_run()
    if config_path is None:
        return usual
    where = starting.socket_of(config_path)
    if may_start and not _answers(where):
        opening.require_terminal(FOR_SCRIPTS)
        opening.loaded(_app, FOR_SCRIPTS)
        sys.stderr.write(f"no daemon runs here: one is started with {config_path}\n")
        starting.start(config_path)
    return where


def _first_run() -> Path | None:
    """Asks for what a gateway needs and writes node.toml here; None when somebody left."""
    app = opening.loaded(_setup, FOR_SCRIPTS)
    from fieldfold.terminal import themes  # noqa: PLC0415 - as _app

    found: Path | None = app(Path("node.toml"), theme=themes.suited(os.environ)).run(mouse=has_mouse(os.environ))
    return found


def _setup() -> type[SetupApp]:
    from node_app.tui.setup.app import SetupApp  # noqa: PLC0415 - as _app

    return SetupApp


def _answers(socket: Path) -> bool:
    try:
        ControlClient(socket).close()
    except ControlError:
        return False
    return True


def _app() -> type[NodeApp]:
    from node_app.tui.app import NodeApp  # noqa: PLC0415 - a gateway need not have textual

    return NodeApp


def lines(status: dict[str, Any]) -> list[str]:
    """The status for people, one fact a line."""
    detail = f": {plain(status['detail'])}" if status["detail"] else ""
    runtime = f", {status['runtime']} on {status['device']} ({status['runtime_reason']})" if status["runtime"] else ""
    version = "-" if status["version"] is None else f"v{status['version']}"
    behind = (status["newest_version"] or 0) - (status["version"] or 0)
    served, own = number(status["served_score"]), status["personal_score"]
    personal = f", {number(own)} personal" if own is not None else ""
    shown = [
        f"node      {status['node']} of {status['federation']}: {status['state']}{detail}",
        f"link      {'up' if status['connected'] else 'not up'}, {status['link']}, {status['reconnects']} reconnects",
        f"task      {status['task'] or '-'}{runtime}",
        f"model     {version}" + (f", {behind} behind" if behind > 0 else ""),
        f"scores    {status['metric']} {number(status['global_score'])} global{personal}, {served} served",
        f"training  loss {number(status['loss'])}, step {status['step']} of {status['steps']}",
        f"updates   {status['accepted']} accepted, {status['rejected']} rejected, {status['outbox']} waiting",
        f"data      {_data(status['data'])}",
        (
            f"bytes     {size(status['bytes_up'])} up (float32: {size(status['float32_up'])}),"
            f" {size(status['bytes_down'])} down (float32: {size(status['float32_down'])})"
        ),
        f"memory    {size(status['memory_bytes'])}",
    ]
    if status["last_receipt"]:
        shown.append(f"receipt   {plain(status['last_receipt'])}")
    return shown


def _data(report: dict[str, Any] | None) -> str:
    """How much there is to train on, and what was left out and why."""
    if report is None:
        return "-"
    train, validation = (report["parts"][part]["windows"] for part in ("train", "validation"))
    dropped = ", ".join(f"{count} for a {reason}" for reason, count in report["dropped_windows"].items())
    return f"{train} windows to train on, {validation} to validate" + (f"; dropped: {dropped}" if dropped else "")
