"""Where a gateway finds its data (the `[data]` table of its configuration), and what every source yields.

A source turns whatever it reads into a `Reading` of `Series`; split, windows and statistics know nothing of its
origin. `files.py` is the source for text and NPZ files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_COLUMNS = 10_000
MAX_FILES = 10_000
MAX_FILE_BYTES = 4 << 30
"""Text of one file after decompression; it is read in blocks and never held as a whole."""
MAX_LINE_BYTES = 1 << 20
MAX_ARCHIVE_BYTES = 1 << 30
"""Declared size of the arrays read from one NPZ file."""
MAX_CELLS = 1 << 26
"""Feature values held in memory, all files together: 512 MiB as float64 while loading, half of it afterwards."""
MAX_SERIES = 100_000
MAX_MAGNITUDE = 1e30
"""Larger numbers are taken for missing: their squares would leave float32, their sums of squares float64."""

Floats: TypeAlias = NDArray[np.float64]
Texts: TypeAlias = NDArray[np.str_]
Column: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)] | Annotated[int, msgspec.Meta(ge=1, le=MAX_COLUMNS)]
"""A column by its name in the header, or by its number counted from 1; the empty name means none."""


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to read and how to understand it.

    A cell that is empty, `nan`, infinite, larger than MAX_MAGNITUDE or one of `missing_values` is missing. Windows
    that contain a missing value are dropped and counted; they are never filled in.

    Attributes:
        files: glob patterns, relative to the folder of the configuration file; gzip is recognised by content.
        format: `auto` tells NPZ from text by content.
        delimiter: one character, `whitespace`, or `auto`: the first of tab, semicolon, comma and bar that stands in
            the first line, else whitespace.
        header: whether the first line names the columns; `auto`: it does when none of its cells is a number.
        columns: name of a feature or target of the task -> column; what is not listed is the column of its own name.
        series: column that tells the series apart; empty: each file is one series, named by its path. The same
            value in several files is one series that continues.
        order: column to sort by within a series (numbers or ISO 8601 times); empty: as the files have it, files in
            the order of their names.
        target: column of the task's target, where it has one; empty: as `columns` says.
        include_series: only these series belong to this gateway; empty: all.
        missing_values: cell texts that mean "no value".
        bad_cells: what text where a number belongs does: `refuse` stops with an error, `drop` takes it for
            missing and drops lines with a wrong number of cells.
        ends: for remaining-life targets, a text file with the true remaining life at the end of each series, one
            number a line in the order of the series' names (numbers in numeric order); empty: every series ends in
            its failure.
        windows: `last` keeps only the last window of each series, the test protocol of C-MAPSS.
    """

    files: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=4096)], ...],
        msgspec.Meta(min_length=1, max_length=1000),
    ]
    format: Literal["auto", "delimited", "npz"] = "auto"
    delimiter: str = "auto"
    header: bool | Literal["auto"] = "auto"
    columns: dict[str, Column] = {}
    series: Column = ""
    order: Column = ""
    target: Column = ""
    include_series: Annotated[tuple[str | int, ...], msgspec.Meta(max_length=MAX_SERIES)] = ()
    missing_values: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] = ("", "NA", "N/A", "null", "None")
    bad_cells: Literal["refuse", "drop"] = "refuse"
    ends: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    windows: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if self.delimiter not in ("auto", "whitespace") and (
            len(self.delimiter) != 1 or self.delimiter.isalnum() or self.delimiter in '"\r\n .+-'
        ):
            raise ValueError(f"delimiter {self.delimiter!r} is neither auto, whitespace nor a separating character")


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Consecutive readings of one thing: a run of one engine, a day of one pump.

    Attributes:
        id: unique within the gateway, the same at every start: the split hangs on it.
        values: float64 `(rows, num_features)`, features in the schema's order, NaN where missing, the index of a
            category.
        targets: float64 `(rows, num_columns)`, the columns of the targets in the schema's order, NaN where missing,
            the index of a class, 1 and 0 for a label; None where no target stands in a column.
        remaining_at_end: remaining life in rows after the last row.
    """

    id: str
    values: Floats
    targets: Floats | None = None
    remaining_at_end: float = 0.0


class FileReport(msgspec.Struct, frozen=True):
    """What was found in one file; `rows` counts only those that this gateway keeps."""

    name: str
    rows: int
    missing_cells: int
    bad_cells: int


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """All that a source read.

    Attributes:
        series: in the order of their names.
        dropped_rows: reason -> number of rows.
    """

    series: list[Series]
    files: tuple[FileReport, ...] = ()
    dropped_rows: dict[str, int] = field(default_factory=dict)
