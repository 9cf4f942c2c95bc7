"""Which columns a task needs, where they stand in a file, and what a reader gives back for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fieldfold.errors import ConfigError, DataError
from fieldfold.sensors.cells import listed
from fieldfold.sensors.schema import ColumnTarget, DataSchema, LabelsTarget, RemainingLifeTarget
from fieldfold.sensors.source import Column, DataConfig, Floats, Texts
from fieldfold.sensors.vocabulary import YES_OR_NO, Vocabulary, of_categories, of_classes


class Wanted(msgspec.Struct, frozen=True):
    """One column to find.

    Attributes:
        key: the configuration key that chose it, for errors.
        column: its name or its number from 1.
        vocabulary: what its texts mean; None for a column of numbers.
    """

    key: str
    column: Column
    vocabulary: Vocabulary | None = None


class Selection(msgspec.Struct, frozen=True):
    """The columns of one task in one gateway's files.

    Attributes:
        values: features in the schema's order, then the columns of the targets in theirs.
        num_features: how many of them are features.
    """

    values: tuple[Wanted, ...]
    num_features: int
    series: Wanted | None = None
    order: Wanted | None = None

    @property
    def numbers(self) -> tuple[Wanted, ...]:
        """Those of `values` that a reader takes for numbers."""
        return tuple(wanted for wanted in self.values if wanted.vocabulary is None)

    @property
    def texts(self) -> tuple[Wanted, ...]:
        """Those of `values` that a reader takes for text."""
        return tuple(wanted for wanted in self.values if wanted.vocabulary is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows of one file, as a reader found them.

    Attributes:
        numbers: float64 `(rows, len(selection.numbers))`, NaN where missing.
        texts: `(rows, len(selection.texts))`.
        series: text `(rows,)`.
        order: float64 `(rows,)`.
        bad_cells: cells with text where a number belongs, taken for missing.
        damaged_lines: lines that were dropped because they had a wrong number of cells.
    """

    numbers: Floats
    texts: Texts
    series: Texts | None = None
    order: Floats | None = None
    bad_cells: int = 0
    damaged_lines: int = 0


def select(schema: DataSchema, config: DataConfig) -> Selection:
    """Maps every feature of the task, and every target that stands in columns, to a column.

    Raises:
        ConfigError: for a column the task does not have, or a key that its targets have no use for.
    """
    features = {feature.name: of_categories(feature) for feature in schema.features}
    targets: dict[str, Vocabulary | None] = {}
    for target in schema.targets:
        if isinstance(target, ColumnTarget):
            targets[target.name] = of_classes(target.classes)
        elif isinstance(target, LabelsTarget):
            targets.update(dict.fromkeys(target.names, YES_OR_NO))
    for name in config.columns:
        if name not in features and name not in targets:
            raise ConfigError(
                f"data.columns.{name}: the task has no such column", f"it has {listed({**features, **targets})}"
            )
    if config.target and not targets:
        raise ConfigError("data.target: the task computes its target", "remove the key")
    if config.target and len(targets) > 1:
        raise ConfigError("data.target: the task has several", f"name {listed(targets)} in [data.columns]")
    if config.ends and not any(isinstance(target, RemainingLifeTarget) for target in schema.targets):
        raise ConfigError("data.ends: the task has no target that is remaining life", "remove the key")
    chosen = [_wanted(name, vocabulary, config) for name, vocabulary in features.items()]
    for name, vocabulary in targets.items():
        by_key = len(targets) == 1 and (config.target or name not in config.columns)
        chosen.append(
            Wanted("data.target", config.target or name, vocabulary) if by_key else _wanted(name, vocabulary, config)
        )
    return Selection(
        values=tuple(chosen),
        num_features=len(features),
        series=Wanted("data.series", config.series) if config.series else None,
        order=Wanted("data.order", config.order) if config.order else None,
    )


def _wanted(name: str, vocabulary: Vocabulary | None, config: DataConfig) -> Wanted:
    return Wanted(f"data.columns.{name}", config.columns.get(name, name), vocabulary)


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
