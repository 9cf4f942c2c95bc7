"""The panes of the data screen, from the data report of the status. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldfold.cli.figures import number
from fieldfold.terminal.glyphs import Glyphs, bar, curve
from fieldfold.terminal.words import Line, Words, columns, counted, fit_end, foreign, line, wrapped
from node_app.records import Drift
from node_app.tui.alerts import DRIFT_STDS
from node_app.tui.snapshot import Snapshot

_WIDTHS = (-9, -9, -9, -8, 14)
"""Minimum, mean, maximum, missing, drift."""
SAMPLE_COLUMNS, SAMPLE_ROWS = 10, 8
MOST_SAMPLE_COLUMNS = 40
DROPPED = "dropped "


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
            first, *rest = wrapped(f"{count:,} {what}: {foreign(reason)}", width - len(DROPPED))
            lines.append(line((DROPPED, "warn"), first))
            lines += (line(" " * len(DROPPED), each) for each in rest)
    files = [line((fit_end(foreign(file["name"]), width), "dim")) for file in report["files"]]
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


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the features."""
    name = _name_width(width)
    return columns(("feature", "minimum", "mean", "maximum", "missing", "  drift", "sample"), (name, *_WIDTHS, 6))


def features(snapshot: Snapshot, width: int) -> Sequence[Line]:
    """One feature a row; drift is the distance of its mean from the fleet's, in the fleet's standard deviations."""
    report: Any = snapshot.status.data if snapshot.status else None
    drifts = {each.name: each for each in snapshot.drift}
    name_width, samples = _name_width(width), {each.name: each.values for each in snapshot.sample}
    rows = []
    for feature in report["features"] if report else ():
        unit = f" [{feature['unit']}]" if feature["unit"] else ""
        shift, far = _shift(drifts.get(feature["name"]))
        known = [number(feature[key]) for key in ("minimum", "mean", "maximum")]
        cells = (foreign(feature["name"] + unit), *known, str(feature["missing"]), f"  {shift}")
        row = columns(cells, (name_width, *_WIDTHS))
        drawn = curve(samples.get(feature["name"], ()), _sample_width(width), 1, snapshot.glyphs)[0]
        rows.append(line((row if drawn else row.rstrip(), "warn" if far else ""), f" {drawn}" if drawn else ""))
    return rows


def names(snapshot: Snapshot) -> Sequence[str]:
    """The features in the order of the rows."""
    report: Any = snapshot.status.data if snapshot.status else None
    return [feature["name"] for feature in report["features"]] if report else ()


def told(snapshot: Snapshot, name: str, width: int) -> str:
    """A feature with all that is known of it, and its values in a training window drawn, oldest on the left."""
    report: Any = snapshot.status.data if snapshot.status else None
    found = next((each for each in report["features"] if each["name"] == name), None) if report else None
    if found is None:
        return ""
    unit = f" {foreign(found['unit'])}" if found["unit"] else ""
    lowest, mean, highest = (number(found[key]) for key in ("minimum", "mean", "maximum"))
    lines = [f"{lowest} to {highest}{unit}, {mean} in the mean; {counted(found['missing'], 'value')} missing"]
    if (drift := next((each for each in snapshot.drift if each.name == name), None)) is not None:
        lines.append(f"here  {number(drift.mean)}{unit}, give or take {number(drift.std)}")
        lines.append(f"fleet {number(drift.fleet_mean)}{unit}, give or take {number(drift.fleet_std)}")
        lines.append(f"drift {_shift(drift)[0]}")
    if values := next((each.values for each in snapshot.sample if each.name == name), ()):
        known = [value for value in values if value is not None]
        span = f": {number(min(known))} to {number(max(known))} as the model sees it" if known else ""
        lines += ["", f"a training window of {counted(len(values), 'row')}{span}"]
        lines += curve(values, width, SAMPLE_ROWS, snapshot.glyphs)
    return "\n".join(lines)


def _sample_width(width: int) -> int:
    """More where there is room."""
    return max(SAMPLE_COLUMNS, min(MOST_SAMPLE_COLUMNS, width - 55 - 20))


def _name_width(width: int) -> int:
    return max(8, width - 55 - _sample_width(width))


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
