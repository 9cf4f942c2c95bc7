"""The panes of the data screen, from the data report of the status. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldfold.cli.figures import number
from fieldfold.terminal.glyphs import Glyphs, bar
from fieldfold.terminal.words import Line, Words, columns, counted, fit, foreign, line
from node_app.records import Drift
from node_app.tui.alerts import DRIFT_STDS
from node_app.tui.snapshot import Snapshot

_WIDTHS = (-9, -9, -9, -8, 14)
"""Minimum, mean, maximum, missing, drift."""


def sources(snapshot: Snapshot, width: int, height: int) -> Words:
    """Files, rows, windows, and what was left out."""
    report = snapshot.status.data if snapshot.status else None
    if report is None:
        return (line(("no data was read yet: that begins with a task", "dim")),) if snapshot.status else ()
    parts = report["parts"]
    lines = [
        line(
            (f"{report['rows']:,} rows", "strong"),
            f" in {report['series']} series, {counted(report['num_files'], 'file')}",
        ),
        line(f"windows: {parts['train']['windows']:,} to train on,"),
        line(f"  {parts['validation']['windows']:,} to validate, {parts['test']['windows']:,} to test"),
    ]
    if report["missing_cells"] or report["bad_cells"]:
        lines.append(line(f"cells: {report['missing_cells']} missing, {report['bad_cells']} no numbers"))
    for what, dropped in (("rows", report["dropped_rows"]), ("windows", report["dropped_windows"])):
        for reason, count in dropped.items():
            lines.append(line(("dropped ", "warn"), f"{count} {what}: {foreign(reason)}"))
    files = [line((fit(foreign(file["name"]), width), "dim")) for file in report["files"]]
    return (*lines, *files)[: max(1, height)]


def targets(snapshot: Snapshot, width: int, height: int) -> Words:
    """How each target is distributed over the windows."""
    report = snapshot.status.data if snapshot.status else None
    lines: list[Line] = []
    for target in report["targets"] if report else ():
        unit = f" in {foreign(target['unit'])}" if target["unit"] else ""
        lines.append(line((f"{foreign(target['name'])}{unit}", "strong")))
        if target["classes"]:
            pairs = [(foreign(name, 14), count) for name, count in target["classes"].items()]
        else:
            edges = [number(edge) for edge in target["edges"]]
            pairs = list(zip(edges, target["counts"], strict=False))
            if len(pairs) > height - 1 > 1:
                pairs = _joined(pairs, height - 1)
        lines.extend(_bars(pairs, width, snapshot.glyphs))
    return tuple(lines[: max(1, height)])


def heading(width: int) -> str:
    """Above the features."""
    name = max(8, width - 54)
    return columns(("feature", "minimum", "mean", "maximum", "missing", "  drift"), (name, *_WIDTHS))


def features(snapshot: Snapshot, width: int) -> Sequence[Line]:
    """One feature a row; drift is the distance of its mean from the fleet's, in the fleet's standard deviations."""
    report: Any = snapshot.status.data if snapshot.status else None
    drifts = {each.name: each for each in snapshot.drift}
    name_width = max(8, width - 54)
    rows = []
    for feature in report["features"] if report else ():
        unit = f" [{feature['unit']}]" if feature["unit"] else ""
        shift, far = _shift(drifts.get(feature["name"]))
        known = [number(feature[key]) for key in ("minimum", "mean", "maximum")]
        cells = (foreign(feature["name"] + unit), *known, str(feature["missing"]), f"  {shift}")
        row = columns(cells, (name_width, *_WIDTHS)).rstrip()
        rows.append(line((row, "warn")) if far else line(row))
    return rows


def _shift(drift: Drift | None) -> tuple[str, bool]:
    if drift is None:
        return "-", False
    shift = (drift.mean - drift.fleet_mean) / drift.fleet_std
    far = abs(shift) > DRIFT_STDS
    return f"{shift:+.1f} std{' far' if far else ''}", far


def _bars(pairs: Sequence[tuple[str, int]], width: int, glyphs: Glyphs) -> list[Line]:
    most = max((count for _, count in pairs), default=0) or 1
    name = max((len(label) for label, _ in pairs), default=0)
    room = max(4, width - name - 9)
    return [line(f"{label.rjust(name)} {bar(count / most, room, glyphs)} {count:,}") for label, count in pairs]


def _joined(pairs: Sequence[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """Neighbouring bins together, until they fit."""
    step = -(-len(pairs) // most)
    return [(pairs[at][0], sum(count for _, count in pairs[at : at + step])) for at in range(0, len(pairs), step)]
