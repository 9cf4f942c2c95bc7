"""Which columns a task needs, where they stand in a file, and what a reader gives back for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from fieldfold.errors import ConfigError, DataError
from fieldfold.sensors.schema import ColumnTarget, DataSchema
from fieldfold.sensors.source import Column, DataConfig, Floats, Texts

MAX_LISTED = 60
"""Columns, series or classes that an error message lists."""


class Wanted(msgspec.Struct, frozen=True):
    """One column to find.

    Attributes:
        key: the configuration key that chose it, for errors.
        column: its name or its number from 1.
    """

    key: str
    column: Column


class Selection(msgspec.Struct, frozen=True):
    """The columns of one task in one gateway's files.

    Attributes:
        features: in the schema's order.
        target_is_text: a class label, which may be text.
    """

    features: tuple[Wanted, ...]
    series: Wanted | None = None
    order: Wanted | None = None
    target: Wanted | None = None
    target_is_text: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows of one file, as a reader found them.

    Attributes:
        values: float64 `(rows, num_features)`, NaN where missing.
        series: text `(rows,)`.
        order: float64 `(rows,)`.
        target: float64 `(rows,)`, when it is a number.
        labels: text `(rows,)`, when the target is a class.
        bad_cells: cells with text where a number belongs, taken for missing.
        damaged_lines: lines that were dropped because they had a wrong number of cells.
    """

    values: Floats
    series: Texts | None = None
    order: Floats | None = None
    target: Floats | None = None
    labels: Texts | None = None
    bad_cells: int = 0
    damaged_lines: int = 0


def select(schema: DataSchema, config: DataConfig) -> Selection:
    """Maps every feature of the task, and its target, to a column.

    Raises:
        ConfigError: for a feature the task does not have, or a key that its target has no use for.
    """
    names = [feature.name for feature in schema.features]
    for name in config.columns:
        if name not in names:
            raise ConfigError(f"data.columns.{name}: the task has no such feature", f"features: {listed(names)}")
    by_column = isinstance(schema.target, ColumnTarget)
    if config.target and not by_column:
        raise ConfigError("data.target: the task computes its target from the series", "remove the key")
    if config.ends and by_column:
        raise ConfigError("data.ends: the task's target is a column, not remaining life", "remove the key")
    target = None
    if isinstance(schema.target, ColumnTarget):
        target = Wanted("data.target", config.target or schema.target.name)
    return Selection(
        features=tuple(Wanted(f"data.columns.{name}", config.columns.get(name, name)) for name in names),
        series=Wanted("data.series", config.series) if config.series else None,
        order=Wanted("data.order", config.order) if config.order else None,
        target=target,
        target_is_text=isinstance(schema.target, ColumnTarget) and bool(schema.target.classes),
    )


def locate(wanted: Wanted, names: Sequence[str] | None, width: int, path: str) -> int:
    """Index from 0 of a column in a file of `width` columns whose header says `names`.

    Raises:
        DataError: when it is not there, or its name stands there twice.
    """
    column = wanted.column
    if isinstance(column, int):
        if column > width:
            raise DataError(f"{path}: there is no column {column} ({wanted.key})", f"it has {width} columns")
        return column - 1
    if names is None:
        raise DataError(
            f"{path}: column {column!r} ({wanted.key}) cannot be found, there is no header line",
            f"set {wanted.key} to the column's number, from 1 to {width}",
        )
    found = [index for index, name in enumerate(names) if name == column]
    if not found:
        raise DataError(f"{path}: there is no column {column!r} ({wanted.key})", f"columns there: {listed(names)}")
    if len(found) > 1:
        raise DataError(
            f"{path}: column {column!r} ({wanted.key}) stands there {len(found)} times",
            f"set {wanted.key} to one of the numbers {listed(str(index + 1) for index in found)}",
        )
    return found[0]


def listed(names: Iterable[str]) -> str:
    """The names, separated by commas, cut off after MAX_LISTED."""
    every = list(names)
    rest = len(every) - MAX_LISTED
    return ", ".join(every[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
