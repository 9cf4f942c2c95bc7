"""The panes of the model screen. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fieldfold.cli.figures import number
from fieldfold.terminal.glyphs import curve
from fieldfold.terminal.words import Line, Piece, Words, columns, counted, foreign, line
from node_app.tui.frame import version_words
from node_app.tui.snapshot import Snapshot, served_words

_WIDTHS = (8, 9, -10)
"""Version, time, score."""


def versions(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """The task, and the models that are here."""
    status = snapshot.status
    if status is None:
        return ()
    if not status.task:
        return (line(("no task yet", "dim")),)
    served = served_words(status.served_version, personal=status.served_personal)
    own = status.personal_score
    pinned: Piece = ("   pinned", "warn") if status.pinned else ("", "")
    return (
        line(("task ", "dim"), (foreign(status.task), "strong"), f"  {status.task_digest[:12]}"),
        line(("here ", "dim"), version_words(status), (f"   {number(status.global_score)}", "strong")),
        line(("served ", "dim"), served, (f"   {number(status.served_score)}", "strong"), pinned),
        *([line(("personal ", "dim"), (number(own), "strong"))] if own is not None else []),
        line((f"{foreign(status.metric)} on this gateway's validation data", "dim")),
    )


def scores(snapshot: Snapshot, width: int, height: int) -> Words:
    """The score of each version that came since the start of the daemon."""
    known = [each.score for each in snapshot.adoptions if each.score is not None]
    if not known:
        return (line(("no version was evaluated yet", "dim")),) if snapshot.status else ()
    span = f"{counted(len(known), 'version')}: {number(known[-1])} ({number(min(known))} to {number(max(known))})"
    return (*(line(row) for row in curve(known, width, max(1, height - 1), snapshot.glyphs)), line(span))


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the versions."""
    return columns(("version", "came", "score"), _WIDTHS) + "  here"


def adoptions(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """Every version that came, newest first: whether it is served, or which one was better."""
    rows = []
    for each in reversed(snapshot.adoptions):
        came = time.strftime("%H:%M:%S", time.localtime(each.at))
        better = served_words(each.served_version, personal=each.served_personal)
        words = "adopted" if each.is_served else f"refused: {better} is better here"
        row = columns((f"v{each.version}", came, number(each.score)), _WIDTHS)
        rows.append(line(row, "  ", (words, "good" if each.is_served else "")))
    return rows
