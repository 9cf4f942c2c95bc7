"""`fieldfold node`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from fieldfold import logs
from fieldfold.cli.figures import number, plain, size
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket
from fieldfold.errors import ConfigError
from fieldfold.service import end_on_signals, leave
from fieldfold.terminal.glyphs import Glyphs

_SOCKET = click.option("--socket", type=click.Path(path_type=Path), help="control socket of the running daemon")


@click.group(invoke_without_command=True)
@_SOCKET
@click.option("--read-only", is_flag=True, help="look only: the daemon refuses this connection every command")
@click.option("--theme", type=click.Choice(["dark", "light", "16"]), help="colours; 16 are the terminal's own")
@click.option("--glyphs", type=click.Choice(["braille", "block", "ascii"]), help="what curves are drawn with")
@click.pass_context
def node(
    context: click.Context, socket: Path | None, theme: str | None, glyphs: Glyphs | None, *, read_only: bool
) -> None:
    """The daemon on every gateway: trains on its own data, sends updates, adopts the fleet's model.

    Without a subcommand, the screens of the daemon that runs here; leaving them changes nothing.
    """
    if context.invoked_subcommand is None:
        _open_screens(socket or running_socket("node"), theme, glyphs, read_only=read_only)
    elif socket is not None or read_only or theme or glyphs:
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


def _command(socket: Path | None, name: str) -> None:
    with ControlClient(socket or running_socket("node")) as client:
        sys.stdout.write(f"{client.command(name)}\n")


def _open_screens(socket: Path, theme: str | None, glyphs: Glyphs | None, *, read_only: bool) -> None:
    """Refuses in one line where there is no daemon, no terminal or no textual; later the daemon may come and go."""
    with ControlClient(socket) as client:
        client.attach(read_only=True)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("the screens need a terminal", "in a script: fieldfold node status --json")
    try:
        from node_app.tui.app import NodeApp  # noqa: PLC0415 - a gateway need not have textual
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise ConfigError(
            "the screens need the package textual", "pip install 'fieldfold[tui]', or: fieldfold node status --watch"
        ) from None
    from fieldfold.terminal import glyphs as drawing  # noqa: PLC0415
    from fieldfold.terminal import themes  # noqa: PLC0415

    NodeApp(
        socket,
        read_only=read_only,
        theme=theme or themes.suited(os.environ),
        glyphs=glyphs or drawing.suited(os.environ, sys.stdout.encoding),
    ).run()


def lines(status: dict[str, Any]) -> list[str]:
    """The status for people, one fact a line."""
    detail = f": {plain(status['detail'])}" if status["detail"] else ""
    runtime = f", {status['runtime']} on {status['device']} ({status['runtime_reason']})" if status["runtime"] else ""
    version = "-" if status["version"] is None else f"v{status['version']}"
    behind = (status["newest_version"] or 0) - (status["version"] or 0)
    metric = status["metric"]
    shown = [
        f"node      {status['node']} of {status['federation']}: {status['state']}{detail}",
        f"link      {'up' if status['connected'] else 'not up'}, {status['link']}, {status['reconnects']} reconnects",
        f"task      {status['task'] or '-'}{runtime}",
        f"model     {version}" + (f", {behind} behind" if behind > 0 else ""),
        f"scores    {metric} {number(status['global_score'])} global, {number(status['served_score'])} served",
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
