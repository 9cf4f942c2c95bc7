"""`fieldfold aggregator verify` and the other commands that work on a ledger."""

# ruff: noqa: PLC0415 -- each command imports what it needs and no more

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from fieldfold.cli.figures import size
from fieldfold.cli.progress import Progress
from fieldfold.errors import ConfigError, ControlError, StoreError

if TYPE_CHECKING:
    from aggregator.history.audit import Finding

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def which_ledger(command: F) -> F:
    """The two ways to say which ledger is meant."""
    command = click.option("--ledger", type=_FILE, help="a ledger.sqlite of a stopped aggregator, or a backup")(
        command
    )
    return click.option("--config", type=_FILE, help="the configuration of a stopped aggregator")(command)


def ledger_path(config: Path | None, ledger: Path | None) -> Path:
    """The file that is meant.

    Raises:
        ConfigError: when neither or both are given, or the configuration cannot be used.
    """
    if ledger is not None and config is None:
        return ledger
    if config is None or ledger is not None:
        raise ConfigError("which ledger is meant is not clear", "give either --config or --ledger")
    from aggregator.config import LEDGER_FILE, load

    return config.resolve().parent / load(config).state_dir / LEDGER_FILE


@click.command()
@which_ledger
@click.option("--json", "as_json", is_flag=True, help="the result, as one JSON object a task")
@click.option("--progress", "often", is_flag=True, help="say how far it is every second, in a pipe too")
def verify(config: Path | None, ledger: Path | None, *, as_json: bool, often: bool) -> None:
    """Fold the whole log again and compare every version with what was released.

    Ends with 1 at the first difference. It needs a ledger that nobody runs on; of a running aggregator verify a
    backup.
    """
    from aggregator.history import audit
    from aggregator.ledger.ledger import Ledger

    found = []
    opened = Ledger.existing(ledger_path(config, ledger))
    try:
        for task in opened.tasks():
            total = opened.num_accepted(task, opened.floor(task).contribution)
            with Progress("contributions folded", total, sys.stderr, told_every_s=1.0 if often else None) as progress:
                found.append(audit.verify(opened, task, progress))
    finally:
        opened.close()
    for one in found:
        click.echo(msgspec.json.encode(one).decode() if as_json else _told(one))
    if not found and not as_json:
        click.echo("the ledger holds no model yet: there is nothing to verify")
    if any(one.difference for one in found):
        sys.exit(1)


@click.command()
@click.argument("path", type=_FILE)
@click.option("--socket", type=_FILE, help="control socket of the running aggregator")
def backup(path: Path, socket: Path | None) -> None:
    """Copy the ledger of the running aggregator to PATH, a new file on its machine.

    Intake goes on meanwhile, and what is acknowledged until the end is in the copy. `verify --ledger PATH` proves it;
    `restore` puts it in a ledger's place.
    """
    from fieldfold.control.client import ControlClient
    from fieldfold.control.protocol import default_socket

    wanted = str(path.absolute())
    with ControlClient(socket or default_socket("aggregator")) as client:
        client.command("backup", path=wanted)
        with Progress("kB", 0, sys.stderr) as progress:
            for status in client.watch(every_s=0.1):
                view = status["backup"]
                progress(view["done_bytes"] // 1000, view["size_bytes"] // 1000)
                if view["state"] == "failed":
                    raise StoreError(f"{path}: no backup was made: {view['trouble']}")
                if view["state"] == "done":
                    click.echo(f"{path}: {size(view['size_bytes'])}")
                    return
    raise ControlError("the aggregator ended before the backup was whole", "start it and make it again")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--config", type=_FILE, required=True, help="the configuration of a stopped aggregator")
def restore(file: Path, config: Path) -> None:
    """Put a backup FILE in the place of an aggregator's ledger.

    The aggregator must not run. What lay there is kept beside it. The gateways go back to the backup's version with
    the next update that they send.
    """
    from aggregator.config import load
    from aggregator.ledger.backup import restore as put_in_place

    path = ledger_path(config, None)
    former = put_in_place(file, path, load(config).federation)
    click.echo(f"{path}: the ledger of {file}" + (f"; the former one is {former}" if former else ""))


@click.command()
@which_ledger
@click.option("--version", type=int, help="which one; the newest without this option")
@click.option("-o", "--output", type=_FILE, required=True, help="a new file, X.safetensors or X.onnx")
def export(config: Path | None, ledger: Path | None, version: int | None, output: Path) -> None:
    """Write a released version of the present task's model to a file for other programs.

    X.safetensors holds the tensors by their names; X.onnx predicts with them and takes nothing but a batch's inputs.
    It needs a ledger that nobody runs on; of a running aggregator take a backup.
    """
    from aggregator.history import export as writer
    from aggregator.history.replay import present_task
    from aggregator.ledger.ledger import Ledger

    opened = Ledger.existing(ledger_path(config, ledger))
    try:
        bundle = present_task(opened)
        number = opened.newest_version(bundle.digest) if version is None else version
        writer.export(opened, bundle, number, output)
    finally:
        opened.close()
    click.echo(f"{output}: version {number} of {bundle.manifest.name}")


@click.command()
@which_ledger
@click.option("--without", multiple=True, required=True, metavar="NODE", help="leave this node out; may be repeated")
@click.option("--from", "from_version", type=int, default=0, help="only behind this version, and not from the start")
@click.option("-o", "--output", type=_FILE, required=True, help="the new ledger")
def refold(
    config: Path | None, ledger: Path | None, without: tuple[str, ...], from_version: int, output: Path
) -> None:
    """Fold the log again as if a node had never taken part, into a new ledger.

    The former ledger stays as it is. Put into service with `restore`, the new one is another run of the same task,
    and every gateway follows it by itself. It needs a ledger that nobody runs on; of a running aggregator take a
    backup.
    """
    from aggregator.federation import draw_run_id
    from aggregator.history import refold as branching
    from aggregator.history.replay import present_task
    from aggregator.ledger.ledger import Ledger

    opened = Ledger.existing(ledger_path(config, ledger))
    try:
        total = opened.num_accepted(present_task(opened).digest, 0)
        with Progress("contributions folded", total, sys.stderr) as progress:
            branch = branching.refold(
                opened, output, draw_run_id(), without=without, from_version=from_version, progress=progress
            )
    finally:
        opened.close()
    click.echo(
        f"{output}: run {branch.origin.run}, {branch.left_out} contributions left out, {branch.version} versions"
        f" where run {branch.origin.parent} has {branch.parent_version}"
    )


def _told(finding: Finding) -> str:
    head = f"task {finding.task[:16]}, run {finding.run}"
    head += "".join(f", a branch of {each.parent} from version {each.version}" for each in finding.origins[-1:])
    if finding.difference is None:
        return (
            f"{head}: versions {finding.from_version} to {finding.to_version} are bit for bit what was released"
            f" ({finding.contributions} contributions folded, {finding.checkpoints} checkpoints compared)"
        )
    where = f"version {finding.difference.version}, contribution {finding.difference.contribution}"
    return f"{head}: DIFFERENT at {where}: {finding.difference.what}"
