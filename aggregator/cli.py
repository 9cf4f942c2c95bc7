"""`fieldfold aggregator`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from aggregator.audit_cli import audit
from aggregator.ledger_cli import backup, export, refold, restore, verify
from aggregator.operating_cli import COMMANDS
from aggregator.simulate.command import simulate
from fieldfold import logs
from fieldfold.cli.figures import number, plain, size
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket
from fieldfold.service import end_on_signals
from fieldfold.terminal import opening
from fieldfold.terminal.glyphs import Glyphs
from fieldfold.terminal.words import counted

if TYPE_CHECKING:
    from aggregator.tui.app import FleetApp


@click.group()
def aggregator() -> None:
    """The service beside the broker: takes updates, folds them, releases the model."""


for each in (audit, verify, backup, restore, export, refold, simulate, *COMMANDS):
    aggregator.add_command(each)


@aggregator.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="configuration file, for example aggregator.toml",
)
@click.option(
    "--take-over", is_flag=True, help="begin although another aggregator keeps the federation; that one ends"
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
def run(config_path: Path, log_level: str, log_format: logs.Format, *, take_over: bool) -> None:
    """Run the aggregator until SIGTERM or Ctrl-C.

    It starts where it was ended, however it was ended: the ledger in state_dir is the truth. Where another aggregator
    keeps the federation it does not start (exit code 8), and it ends when another one takes over.
    """
    from aggregator.config import load  # noqa: PLC0415 - help and status need neither numpy nor the codec
    from aggregator.service import Service  # noqa: PLC0415

    logs.set_up(level=log_level, form=log_format)
    os.umask(0o027)  # what is written is nobody else's to read
    service = Service(load(config_path), config_path.resolve().parent, take_over=take_over)
    end_on_signals(service.stop)
    service.run()


@aggregator.command()
@click.option("--socket", type=click.Path(path_type=Path), help="control socket of the running aggregator")
@click.option("--json", "as_json", is_flag=True, help="everything, as one JSON object")
def status(socket: Path | None, *, as_json: bool) -> None:
    """Say how the federation is doing."""
    with ControlClient(socket or running_socket("aggregator")) as client:
        answer = client.status()
    if as_json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    else:
        sys.stdout.write("\n".join(lines(answer)) + "\n")


@aggregator.command()
@click.option("--socket", type=click.Path(path_type=Path), help="control socket of the running aggregator")
@opening.options
def tui(socket: Path | None, theme: str | None, glyphs: Glyphs | None, *, read_only: bool) -> None:
    """The screens of the fleet whose aggregator runs here; leaving them changes nothing."""
    where = socket or running_socket("aggregator")

    def load() -> type[FleetApp]:
        from aggregator.tui.app import FleetApp  # noqa: PLC0415 - an aggregator need not have textual

        return FleetApp

    opening.show(load, where, "fieldfold aggregator status --json", theme=theme, glyphs=glyphs, read_only=read_only)


def _gateways(status: dict[str, Any]) -> list[str]:
    """How good the model is where it is used."""
    if status["score_median"] is None:
        return []
    median, worst = number(status["score_median"]), number(status["score_worst_decile"])
    return [f"gateways    {status['metric']} median {median}, worst tenth {worst}, each on its own data"]


def _classes(status: dict[str, Any]) -> list[str]:
    """Who gains by it."""
    if not status["classes"]:
        return []
    worst = plain(status["worst_class"]) if status["worst_class"] is not None else "-"
    shown = [f"classes     {status['metric']}, worst for {worst}"]
    for each in status["classes"]:
        on = f"on {counted(each['num_examples'], 'example')} of {counted(each['num_nodes'], 'node')}"
        shown.append(f"  {plain(each['name']):<20} {number(each['score']):>8} {on}")
    return shown


def lines(status: dict[str, Any]) -> list[str]:
    """The status for people, one fact a line."""
    score = "-" if status["score"] is None else f"{number(status['score'])} at version {status['score_version']}"
    if status["evaluation_trouble"]:
        score = f"is off: {plain(status['evaluation_trouble'])}"
    saved = f" (float32: {size(status['float32_bytes'])})" if status["float32_bytes"] else ""
    detail = f" ({status['detail']})" if status["detail"] else ""
    shown = [
        f"federation  {status['federation']}: {status['state']}{detail}",
        f"link        {'up' if status['connected'] else 'not up'}, {status['link']}",
        f"task        {status['task'] or 'none yet: fieldfold task publish X.bundle'}",
        f"version     {'-' if status['version'] is None else status['version']}",
        f"held-out    {status['metric']} {score}",
        *_gateways(status),
        *_classes(status),
        f"nodes       {status['nodes_online']} of {status['nodes_known']} online",
        f"updates     {status['accepted']} accepted, {status['rejected']} rejected, {status['malformed']} malformed",
        f"staleness   median {status['staleness_median']:.0f}, largest {status['staleness_max']}",
        f"received    {size(status['bytes_received'])}{saved}",
        f"published   {size(status['bytes_published'])}",
    ]
    for node in status["nodes"]:
        presence = node["presence"] or {"state": "not heard", "version": None}
        why = f"  last refusal: {plain(node['last_reason'])}" if node["last_reason"] else ""
        version = "-" if presence["version"] is None else presence["version"]
        counts = f"{node['accepted']:>6} accepted {node['rejected']:>4} rejected"
        shown.append(f"  {node['node']:<20} {plain(presence['state']):<24} v{version!s:<6} {counts}{why}")
    return shown
