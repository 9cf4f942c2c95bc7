"""The panes of the training screen. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fieldfold.cli.figures import number, size
from fieldfold.terminal.glyphs import bar, curve
from fieldfold.terminal.words import Line, Words, columns, counted, foreign, line
from node_app.tui.overview.view import load, next_update, runtime
from node_app.tui.snapshot import Snapshot

_WIDTHS = (-7, 8, 9, -6, -9, -7)
"""Number, time, decision, staleness, size, error."""


def present(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """The run under way, and the runtime with why it was chosen."""
    status = snapshot.status
    if status is None:
        return ()
    lines = [line((foreign(status.state), "strong"))]
    if words := next_update(status):
        lines.append(line(words))
    if status.steps:
        done = status.step / status.steps
        lines.append(line(f"{bar(done, min(20, width - 20), snapshot.glyphs)} step {status.step} of {status.steps}"))
    if status.steps_per_s is not None:
        lines.append(line(f"{number(status.steps_per_s)} steps/s"))
    lines.append(load(snapshot, status))
    return (*lines, *runtime(status, width))


def losses(snapshot: Snapshot, width: int, height: int) -> Words:
    """The mean loss of each run since the start of the daemon."""
    if not snapshot.runs:
        return (line(("the first run is not done yet", "dim")),) if snapshot.status else ()
    known = [each.loss for each in snapshot.runs]
    newest = snapshot.runs[-1]
    span = f"{number(known[-1])} now ({number(min(known))} to {number(max(known))})"
    last = f"last {newest.num_steps:,} steps, {newest.seconds:.1f} s"
    took = f"{counted(len(known), 'run')}; {last}"
    return (*(line(row) for row in curve(known, width, max(1, height - 2), snapshot.glyphs)), line(span), line(took))


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the updates."""
    return columns(("update", "decided", "decision", "stale", "bytes", "error"), _WIDTHS) + "  why"


def updates(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """What the aggregator decided, newest first."""
    rows = []
    errors = {each.sequence: f"{100 * each.error:.0f} %" for each in snapshot.runs}
    for each in snapshot.history:
        decided = time.strftime("%H:%M:%S", time.localtime(each.decided_at))
        left = columns((f"#{each.sequence}", decided), _WIDTHS[:2])
        figures = (str(each.staleness), size(each.size_bytes), errors.get(each.sequence, "-"))
        right = columns(figures, _WIDTHS[3:])
        word = "accepted" if each.accepted else "rejected"
        reason = f"  {foreign(each.reason)}" if each.reason else ""
        rows.append(line(left, " ", (word.ljust(9), "good" if each.accepted else "bad"), f" {right}{reason}"))
    return rows
