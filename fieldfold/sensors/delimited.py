"""Delimited text.

A block whose lines are regular and whose wanted cells are all numbers goes through numpy's C parser. Any other
block is read cell by cell, which finds missing values and can name the line and column of what does not belong.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from fieldfold.errors import DataError
from fieldfold.sensors.cells import as_number, as_order, not_a_number, shown
from fieldfold.sensors.columns import Block, Selection, Wanted, locate
from fieldfold.sensors.lines import line_blocks
from fieldfold.sensors.source import MAX_COLUMNS, DataConfig, Floats, Texts


class _Plan(msgspec.Struct, frozen=True):
    """How the lines of one file are taken apart.

    Attributes:
        delimiter: None for whitespace.
        names: the header's cells.
        numbers: column indices to read as numbers.
        texts: column indices to read as text: series and order, where they are wanted, then the selection's.
    """

    path: str
    delimiter: str | None
    width: int
    names: tuple[str, ...] | None
    numbers: tuple[int, ...]
    texts: tuple[int, ...]
    missing_values: frozenset[str]
    drop: bool

    def where(self, line: int, column: int) -> str:
        name = f" ({self.names[column]})" if self.names is not None else ""
        return f"{self.path}, line {line}, column {column + 1}{name}"


class _Cells(msgspec.Struct, frozen=True):
    """Wanted cells of a block: numbers float64 `(rows, len(plan.numbers))`, texts `(rows, len(plan.texts))`."""

    numbers: Floats
    texts: Texts
    bad_cells: int = 0
    damaged_lines: int = 0


def read(path: Path, selection: Selection, config: DataConfig) -> Iterator[Block]:
    """The selected columns of one file; nothing at all for a file without rows.

    Raises:
        DataError: naming the file, and line and column where there are any.
    """
    plan: _Plan | None = None
    for first, block in line_blocks(path):
        number, lines = first, block
        if plan is None:
            blank = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
            number, lines = number + blank, lines[blank:]
            if not lines:
                continue
            plan = _plan(str(path), number, lines[0], selection, config)
            if plan.names is not None:
                number, lines = number + 1, lines[1:]
        if any(line.strip() for line in lines):
            yield _as_block(_parse(plan, number, lines), selection, str(path))


def _plan(path: str, number: int, line: str, selection: Selection, config: DataConfig) -> _Plan:
    """Settles delimiter, header and columns from the first line that is not blank."""
    delimiter = _delimiter(line, config)
    cells = _split(line, delimiter, f"{path}, line {number}")
    if len(cells) > MAX_COLUMNS:
        raise DataError(f"{path}: has {len(cells)} columns, at most {MAX_COLUMNS} are allowed", "split the file")
    header = config.header
    if header == "auto":
        header = all(as_number(cell) is None for cell in cells)
    names = tuple(cells) if header else None

    def place(wanted: Wanted) -> int:
        return locate(wanted, names, len(cells), path)

    texts = [wanted for wanted in (selection.series, selection.order, *selection.texts) if wanted]
    return _Plan(
        path=path,
        delimiter=delimiter,
        width=len(cells),
        names=names,
        numbers=tuple(map(place, selection.numbers)),
        texts=tuple(map(place, texts)),
        missing_values=frozenset(config.missing_values) | {""},
        drop=config.bad_cells == "drop",
    )


def _delimiter(line: str, config: DataConfig) -> str | None:
    if config.delimiter == "auto":
        return next((candidate for candidate in "\t;,|" if candidate in line), None)
    return None if config.delimiter == "whitespace" else config.delimiter


def _split(line: str, delimiter: str | None, where: str) -> list[str]:
    if delimiter is None:
        return line.split()
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(f"{where}: {error}: {shown(line)}", "correct the quotes in that line") from None
    return [cell.strip() for cell in cells]


def _parse(plan: _Plan, first: int, lines: Sequence[str]) -> _Cells:
    """The wanted cells of lines numbered from `first`; blank lines are passed over."""
    rows = [line for line in lines if line.strip()]
    if _regular(plan, rows):
        try:
            return _parse_numbers(plan, rows)
        except ValueError:
            pass  # some cell is not a number: reading them one by one tells which, and whether it matters
    return _parse_cells(plan, first, lines)


def _regular(plan: _Plan, rows: Sequence[str]) -> bool:
    """Whether each line has the first line's number of cells and none is quoted."""
    if plan.delimiter is None:
        return all(len(row.split()) == plan.width for row in rows)
    delimiter, count = plan.delimiter, plan.width - 1
    return all(row.count(delimiter) == count and '"' not in row for row in rows)


def _parse_numbers(plan: _Plan, rows: Sequence[str]) -> _Cells:
    if not plan.numbers:
        numbers = np.empty((len(rows), 0))
    else:
        numbers = np.loadtxt(rows, np.float64, comments=None, delimiter=plan.delimiter, usecols=plan.numbers, ndmin=2)
    if not plan.texts:
        return _Cells(numbers, np.empty((len(rows), 0), np.str_))
    texts = np.loadtxt(rows, np.str_, comments=None, delimiter=plan.delimiter, usecols=plan.texts, ndmin=2)
    return _Cells(numbers, np.strings.strip(texts))


def _parse_cells(plan: _Plan, first: int, lines: Sequence[str]) -> _Cells:
    numbers = np.full((len(lines), len(plan.numbers)), np.nan)
    texts: list[list[str]] = []
    bad_cells = damaged_lines = 0
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        cells = _cells_of_line(plan, number, line)
        if cells is None:
            damaged_lines += 1
            continue
        for index, column in enumerate(plan.numbers):
            cell = cells[column]
            if cell in plan.missing_values:
                continue
            value = as_number(cell)
            if value is not None:
                numbers[len(texts), index] = value
            elif plan.drop:
                bad_cells += 1
            else:
                raise not_a_number(cell, plan.where(number, column))
        texts.append([cells[column] for column in plan.texts])
    text_array = np.array(texts, np.str_).reshape(len(texts), len(plan.texts))
    return _Cells(numbers[: len(texts)], text_array, bad_cells, damaged_lines)


def _cells_of_line(plan: _Plan, number: int, line: str) -> list[str] | None:
    """The line's cells; None for a damaged line that may be dropped. Empty cells beyond its end are no damage."""
    cells = _split(line, plan.delimiter, f"{plan.path}, line {number}")
    if len(cells) == plan.width or (len(cells) > plan.width and not any(cells[plan.width :])):
        return cells
    if plan.drop:
        return None
    raise DataError(
        f"{plan.path}, line {number}: {len(cells)} cells where the first line has {plan.width}: {shown(line)}",
        'correct the line, check data.delimiter, or set data.bad_cells = "drop" to pass over such lines',
    )


def _as_block(cells: _Cells, selection: Selection, path: str) -> Block:
    texts = iter(cells.texts.T)
    series = next(texts) if selection.series else None
    order = as_order(next(texts), f"{path} ({selection.order.key})") if selection.order else None
    return Block(
        numbers=cells.numbers,
        texts=cells.texts[:, cells.texts.shape[1] - len(selection.texts) :],
        series=series,
        order=order,
        bad_cells=cells.bad_cells,
        damaged_lines=cells.damaged_lines,
    )
