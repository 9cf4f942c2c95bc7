"""The panes of the releases. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aggregator.records import Released
from aggregator.tui.nodes.view import best_of
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import number, size
from fieldfold.terminal.glyphs import curve
from fieldfold.terminal.words import Line, Words, columns, counted, foreign, line

_WIDTHS = (-8, 14, -10, -6, -10)
"""Version, time, score, nodes, bytes."""


def scores(snapshot: Snapshot, width: int, height: int) -> Words:
    """The held-out score of each version."""
    status = snapshot.status
    if status is None:
        return ()
    if status.evaluation_trouble:
        return (line(("no scores: ", "warn"), foreign(status.evaluation_trouble)),)
    known = [each.score for each in snapshot.versions if each.score is not None]
    if not known:
        return (line(("no version was evaluated yet: [evaluation] in aggregator.toml says on what", "dim")),)
    best = best_of(snapshot)
    span = f"{foreign(status.metric)} {number(known[-1])} now, {number(min(known))} to {number(max(known))}"
    said = f"{span}; best at v{best[0]}" if best else span
    return (*(line(row) for row in curve(known, width, max(1, height - 1), snapshot.glyphs)), line(said))


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the versions."""
    return columns(("version", "released", "held-out", "nodes", "bytes"), _WIDTHS)


def newest_first(snapshot: Snapshot) -> list[Released]:
    """The versions in the order of the rows."""
    return list(reversed(snapshot.versions))


def versions(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """One version a row; the best is named."""
    best = best_of(snapshot)
    rows = []
    for each in newest_first(snapshot):
        at = time.strftime("%m-%d %H:%M:%S", time.localtime(each.at))
        row = columns((f"v{each.version}", at, number(each.score), str(each.nodes), size(each.size_bytes)), _WIDTHS)
        note = f"  is v{each.to_version} again" if each.to_version is not None else ""
        mark = "  best" if best is not None and best[0] == each.version else ""
        rows.append(line(row, (note, "warn"), (mark, "good")))
    return rows


def numbers(snapshot: Snapshot) -> Sequence[str]:
    """The versions as what they are called."""
    return [str(each.version) for each in newest_first(snapshot)]


def told(snapshot: Snapshot, version: str) -> str:
    """A version in one line."""
    found = next((each for each in snapshot.versions if str(each.version) == version), None)
    if found is None:
        return f"version {version}"
    return f"version {version}, held-out {number(found.score)}, out of {counted(found.nodes, 'node')}"
