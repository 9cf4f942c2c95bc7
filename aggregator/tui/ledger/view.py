"""The panes of the ledger. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.tui.node.view import decision
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import size
from fieldfold.terminal.glyphs import bar
from fieldfold.terminal.words import Line, Role, Words, columns, foreign, line, wrapped

BAR_COLUMNS = 30
_WIDTHS = (-8, 16)
"""Place, node."""


def proof(snapshot: Snapshot, width: int, height: int) -> Words:
    """How far a verification is, or what it came to; and the newest backup."""
    status = snapshot.status
    if status is None:
        return ()
    lines: list[Line] = [
        line(f"{status.accepted:,} updates taken, {status.rejected:,} refused, {status.malformed:,} unreadable")
    ]
    found = status.proof
    if found is None:
        lines.append(line(("not verified since the aggregator's start: v does", "dim")))
    elif found.state == "running":
        share = found.done / found.total if found.total else 0.0
        said = f"{found.done:,} of {found.total:,} folded again" if found.total else "a copy is made"
        lines.append(line("verifying ", bar(share, min(BAR_COLUMNS, width - 40), snapshot.glyphs), f" {said}"))
    else:
        roles: dict[str, Role] = {"done": "good", "different": "bad", "failed": "warn"}
        words = {"done": "verified", "different": "DIFFERENT", "failed": "no word"}[found.state]
        lines.append(line((words, roles[found.state])))
        lines += (line(each) for each in wrapped(foreign(found.said), width, "  "))
    if (backup := status.backup) is not None:
        word = f"{backup.state}, {size(backup.done_bytes)} of {size(backup.size_bytes)}"
        lines.append(line(f"backup to {foreign(backup.path)}: {word}"))
    return tuple(lines[: max(1, height)])


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the decisions."""
    left = columns(("place", "node"), _WIDTHS)
    return f"{left} {'decided':8} {'decision':9} {'stale':>6} {'norm':>9} {'bytes':>9}  why"


def decisions(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """The newest decisions."""
    return [decision(each, columns((str(each.place), each.node), _WIDTHS)) for each in snapshot.decisions]
