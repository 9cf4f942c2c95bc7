"""`fieldfold aggregator audit`: who asked for what, and whether these rows are what was written."""

# ruff: noqa: PLC0415 -- each command imports what it needs and no more

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from aggregator.ledger_cli import ledger_path, which_ledger
from fieldfold.cli.figures import plain
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import running_socket

if TYPE_CHECKING:
    from aggregator.ledger.chain import Audited
    from aggregator.ledger.records import AuditView, SealedOperation

_FILE = click.Path(path_type=Path)


@click.command()
@which_ledger
@click.option("--socket", type=_FILE, help="control socket of the running aggregator")
@click.option(
    "--key",
    "keys",
    type=_FILE,
    multiple=True,
    help="a seal-*.pub to believe, in the place of those beside the ledger",
)
@click.option("--noted", multiple=True, metavar="DIGEST", help="of an earlier audit; it must still be in the chain")
@click.option("--json", "as_json", is_flag=True, help="one JSON object an operation, the result as the last")
def audit(  # noqa: PLR0913 - one parameter an option
    config: Path | None,
    ledger: Path | None,
    socket: Path | None,
    keys: tuple[Path, ...],
    noted: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Print what people asked for, and check that no row was changed, taken out, put in or moved.

    Of the running aggregator; with --config or --ledger of one that is stopped, or of a backup. Ends with 1 where
    something is wrong. The keys that are believed lie beside the ledger; of a backup elsewhere, name them.
    """
    from aggregator.ledger.chain import audit as check
    from aggregator.ledger.seal import PUBLIC_FILES, verifier

    running = config is None and ledger is None
    read = _of_the_running(socket) if running else _of_the_stopped(ledger_path(config, ledger))
    rows = read.rows
    found = check(read.ledger, rows, read.end, verifier(keys or sorted(Path(read.folder).glob(PUBLIC_FILES))), noted)
    for row in rows:
        click.echo(msgspec.json.encode(row).decode() if as_json else _line(row))
    click.echo(msgspec.json.encode(found).decode() if as_json else _told(found))
    if found.broken:
        sys.exit(1)


def _of_the_running(socket: Path | None) -> AuditView:
    """All that it gives, page after page."""
    from aggregator.ledger.records import AuditView

    with ControlClient(socket or running_socket("aggregator")) as client:
        read = msgspec.convert(client.view("audit"), AuditView)
        rows, page = read.rows, read.rows
        while page:
            page = msgspec.convert(client.view("audit", after=rows[-1].operation.id), AuditView).rows
            rows += page
    return read


def _of_the_stopped(path: Path) -> AuditView:
    from aggregator.ledger.ledger import Ledger
    from aggregator.ledger.records import AuditView

    opened = Ledger.existing(path)
    try:
        folder = str(path.resolve().parent)
        return AuditView(opened.name, opened.operations_end(), folder, list(opened.all_sealed()))
    finally:
        opened.close()


def _line(row: SealedOperation) -> str:
    each = row.operation
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.at))
    who = f"{plain(each.who):<12} {plain(each.command):<12} {plain(each.result)}"
    return f"{each.id:>5}  {at}  {who}  [{row.key[:8] or 'not signed'}]"


def _told(found: Audited) -> str:
    if found.broken:
        return f"BROKEN behind row {found.count}: {plain(found.broken)}"
    signed = f", signed by {', '.join(key[:16] for key in found.keys)}" if found.keys else ""
    return f"{found.count} operations are as they were written{signed}; note {found.digest}"
