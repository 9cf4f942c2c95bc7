"""What became of the data, for status and screens: files, rows, windows, what was dropped and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.sensors.schema import ColumnTarget, DataSchema
from fieldfold.sensors.source import FileReport
from fieldfold.sensors.windows import Windows

MAX_LISTED_FILES = 200
HISTOGRAM_BINS = 12


class PartReport(msgspec.Struct, frozen=True):
    """Size of one part of the split; a series that is split by time counts in each of its parts."""

    series: int
    rows: int
    windows: int


class FeatureReport(msgspec.Struct, frozen=True):
    """Range of one feature over all rows, in its own unit; None where it has no value at all."""

    name: str
    unit: str
    missing: int
    minimum: float | None
    mean: float | None
    maximum: float | None


class TargetReport(msgspec.Struct, frozen=True):
    """Distribution of the target over the windows of all parts, in its own unit, after the cap.

    Attributes:
        classes: class -> windows, in the task's order; empty for regression.
        edges: HISTOGRAM_BINS + 1 bin edges; empty for classification and where there are no windows.
        counts: windows in each bin.
    """

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
    target: TargetReport
    features: tuple[FeatureReport, ...]


def describe_features(schema: DataSchema, rows: NDArray[np.floating[Any]]) -> tuple[FeatureReport, ...]:
    """Ranges over `rows` `(num_rows, num_features)`, NaN left out."""
    reports = []
    for index, feature in enumerate(schema.features):
        column = rows[:, index]
        values = column[~np.isnan(column)]
        low, mean, high = _range(values)
        reports.append(FeatureReport(feature.name, feature.unit, len(column) - len(values), low, mean, high))
    return tuple(reports)


def describe_target(schema: DataSchema, parts: Sequence[Windows]) -> TargetReport:
    """Distribution over the windows of all `parts`."""
    targets = np.concatenate([windows.targets for windows in parts])
    if isinstance(schema.target, ColumnTarget) and schema.target.classes:
        counts = np.bincount(targets, minlength=len(schema.target.classes)).tolist()
        return TargetReport(classes=dict(zip(schema.target.classes, counts, strict=True)))
    values = targets[:, 0].astype(np.float64) * schema.target.scale
    if not len(values):
        return TargetReport()
    low, mean, high = _range(values)
    bins, edges = np.histogram(values, HISTOGRAM_BINS)
    return TargetReport(
        minimum=low, mean=mean, maximum=high, edges=tuple(edges.tolist()), counts=tuple(bins.tolist())
    )


def describe_drops(dropped: Mapping[str, int]) -> str:
    """The reasons and counts in one line, for errors; empty when nothing was dropped."""
    return ", ".join(f"{reason}: {count}" for reason, count in dropped.items())


def _range(values: NDArray[np.floating[Any]]) -> tuple[float | None, float | None, float | None]:
    if not len(values):
        return None, None, None
    return float(values.min()), float(values.mean()), float(values.max())
