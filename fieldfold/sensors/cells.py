"""What the text of a cell means: a number, a label, a place in time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np

from fieldfold.errors import DataError
from fieldfold.sensors.source import Floats, Texts

MAX_SHOWN = 40
MAX_LISTED = 60
"""Columns, series or classes that an error message lists."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_WHOLE = re.compile(r"[+-]?\d+\.\d*([eE][+-]?\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_number(cell: str) -> float | None:
    """The number that `cell` says, or None when it is something else; ASCII without digit separators."""
    if "_" in cell or not cell.isascii():
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def not_a_number(cell: str, where: str) -> DataError:
    """The error for text where a number belongs; `where` names file, line and column."""
    if _DECIMAL_COMMA.fullmatch(cell):
        hint = "export the file with decimal points; decimal commas are not read"
    else:
        hint = 'correct it, list it in data.missing_values, or set data.bad_cells = "drop" to take it for missing'
    return DataError(f"{where}: {shown(cell)} is not a number", hint)


def shown(cell: str) -> str:
    """A cell in quotes, cut to a length that fits a line."""
    return repr(cell if len(cell) <= MAX_SHOWN else cell[:MAX_SHOWN] + "...")


def listed(names: Iterable[str]) -> str:
    """The names, separated by commas, cut off after MAX_LISTED."""
    every = list(names)
    rest = len(every) - MAX_LISTED
    return ", ".join(every[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def canonical_label(text: str) -> str:
    """One spelling for a label that was written as a number: `3.0` and `3.0000e+00` are `3`, `007` is itself."""
    text = text.strip()
    if _WHOLE.fullmatch(text):
        number = float(text)
        if math.isfinite(number) and number == int(number):
            return str(int(number))
    return text


def as_order(cells: Texts, where: str) -> Floats:
    """Sort keys `(rows,)` of a column: its numbers, or its ISO 8601 times in microseconds.

    A time without an offset is taken for UTC.

    Raises:
        DataError: when a cell is missing or neither of the two.
    """
    try:
        keys = cells.astype(np.float64)
    except ValueError:
        keys = np.array([_microseconds(str(cell).strip(), where) for cell in cells], np.float64)
    if not np.isfinite(keys).all():
        raise _no_order("nan", where)
    return keys


def _microseconds(cell: str, where: str) -> float:
    try:
        time = datetime.fromisoformat(cell)
    except ValueError:
        raise _no_order(cell, where) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - _EPOCH) / timedelta(microseconds=1)


def _no_order(cell: str, where: str) -> DataError:
    return DataError(
        f"{where}: {shown(cell)} says no place in the series",
        "each row needs a number or an ISO 8601 time there, the same kind in every row",
    )
