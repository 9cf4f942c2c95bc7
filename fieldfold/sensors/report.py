"""What became of the data, for status and screens: files, rows, windows, what was dropped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.sensors.schema import ColumnTarget, DataSchema, InputTarget, LabelsTarget, Target
from fieldfold.sensors.source import FileReport
from fieldfold.sensors.windows import Origin, Windows, origins

MAX_LISTED_FILES = 200
HISTOGRAM_BINS = 12


class PartReport(msgspec.Struct, frozen=True):
    """Size of one part of the split; a series that is split by time counts in each of its parts."""

    series: int
    rows: int
    windows: int


class FeatureReport(msgspec.Struct, frozen=True):
    """Range of one feature over all rows, in its own unit; None for categories, and where it has no value at all."""

    name: str
    unit: str
    missing: int
    minimum: float | None
    mean: float | None
    maximum: float | None


class TargetReport(msgspec.Struct, frozen=True):
    """Distribution of one target over the windows of all parts, in its own unit, after the cap.

    A target per step is counted by rows that lie in a window. Of a target that is the input nothing is told here.

    Attributes:
        name: its column, `remaining life`, `labels` or `input`.
        classes: class -> windows, in the task's order; for labels the windows where each holds; else empty.
        edges: HISTOGRAM_BINS + 1 bin edges of a number; empty where there are no windows.
        counts: windows in each bin.
    """

    name: str
    unit: str = ""
    classes: dict[str, int] = {}
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class DataReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a screen or a probe may show of a gateway's data.

    Attributes:
        files: the first MAX_LISTED_FILES of `num_files`.
        rows: rows kept.
        parts: train, validation and test.
        dropped_rows: reason -> number of rows.
        dropped_windows: reason -> number of windows.
    """

    num_files: int
    files: tuple[FileReport, ...]
    rows: int
    series: int
    missing_cells: int
    bad_cells: int
    parts: dict[str, PartReport]
    dropped_rows: dict[str, int]
    dropped_windows: dict[str, int]
    targets: tuple[TargetReport, ...]
    features: tuple[FeatureReport, ...]


def describe_features(schema: DataSchema, rows: NDArray[np.floating[Any]]) -> tuple[FeatureReport, ...]:
    """Ranges over `rows` `(num_rows, num_features)`, NaN left out."""
    reports = []
    for index, feature in enumerate(schema.features):
        column = rows[:, index]
        values = column[~np.isnan(column)]
        low, mean, high = _range(values[:0] if feature.categories else values)
        reports.append(FeatureReport(feature.name, feature.unit, len(column) - len(values), low, mean, high))
    return tuple(reports)


def describe_targets(schema: DataSchema, parts: Sequence[Windows]) -> tuple[TargetReport, ...]:
    """Distribution of each target over the windows of all `parts`."""
    places = origins(schema)[len(schema.inputs) :]
    return tuple(
        _describe_target(target, np.concatenate([_values(windows, origin) for windows in parts]))
        for target, origin in zip(schema.targets, places, strict=True)
    )


def _describe_target(target: Target, values: NDArray[np.float32]) -> TargetReport:
    if isinstance(target, InputTarget):
        return TargetReport("input")
    if isinstance(target, LabelsTarget):
        return TargetReport("labels", classes=dict(zip(target.names, map(int, values.sum(0)), strict=True)))
    name, offset = (target.name, target.offset) if isinstance(target, ColumnTarget) else ("remaining life", 0.0)
    if isinstance(target, ColumnTarget) and target.classes:
        counts = np.bincount(values[:, 0].astype(np.int64), minlength=len(target.classes)).tolist()
        return TargetReport(name, classes=dict(zip(target.classes, counts, strict=True)))
    if not len(values):
        return TargetReport(name, target.unit)
    numbers = values[:, 0].astype(np.float64) * target.scale + offset
    low, mean, high = _range(numbers)
    bins, edges = np.histogram(numbers, HISTOGRAM_BINS)
    return TargetReport(
        name, target.unit, {}, low, mean, high, edges=tuple(edges.tolist()), counts=tuple(bins.tolist())
    )


def _values(windows: Windows, origin: Origin) -> NDArray[np.float32]:
    """What the windows hold of a target, `(values, columns)`; nothing of one that is the input."""
    if origin.table == "rows":
        return np.empty((0, 0), np.float32)
    ends = windows.starts + windows.window
    if not origin.per_step:
        return windows.targets[ends - 1][:, origin.places]
    edges = np.zeros(len(windows.targets) + 1, np.int64)
    np.add.at(edges, windows.starts, 1)
    np.add.at(edges, ends, -1)
    return windows.targets[np.cumsum(edges)[:-1] > 0][:, origin.places]


def describe_drops(dropped: Mapping[str, int]) -> str:
    """The reasons and counts in one line, for errors; empty when nothing was dropped."""
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items())


def _range(values: NDArray[np.floating[Any]]) -> tuple[float | None, float | None, float | None]:
    if not len(values):
        return None, None, None
    return float(values.min()), float(values.mean()), float(values.max())
