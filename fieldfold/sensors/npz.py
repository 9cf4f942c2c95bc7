"""NPZ archives: either one 2-D array `data`, with its column names in `columns`, or one 1-D array a column.

Beside a 2-D `data` further 1-D arrays are columns too, so that names of series or classes can be text. Sizes are
checked as declared before anything is allocated, and pickled objects are refused.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.cells import as_order
from fieldfold.sensors.columns import Block, Selection, Wanted, locate
from fieldfold.sensors.source import MAX_ARCHIVE_BYTES, MAX_CELLS, MAX_COLUMNS, Floats, Texts

ZIP_MAGIC = b"PK"
MAX_HEADER_BYTES = 10_000
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([ -&(-~]{1,32})',\s*'fortran_order':\s*(True|False),"
    rb"\s*'shape':\s*\(((?:\d{1,18}[, ]{0,2}){0,2})\),?\s*\}\s*"
)
"""NPY format: a Python dictionary of exactly these keys, read without evaluating it."""
_NUMERIC_KINDS = "fiub"
_TEXT_KINDS = "USM"


def read(path: Path, selection: Selection) -> Iterator[Block]:
    """The selected columns of one archive, as one block; nothing at all when its arrays are empty.

    Raises:
        DataError: naming the file and the array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            table = _Archive(archive, str(path))
            block = _as_block(table, selection)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is damaged or no NPZ file: {error}", "copy it again, or write it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}", "write it with numpy.savez_compressed") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", "check the file and its permissions") from None
    if len(block.numbers):
        yield block


class _Archive:
    """Columns of an open archive by name or number; an array is unpacked once, when it is first asked for."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self._archive = archive
        self.path = path
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._left_bytes = MAX_ARCHIVE_BYTES
        self._data: NDArray[Any] | None = None
        self._data_names: list[str] | None = None
        if "data" in self._members:
            data = self._array("data")
            if data.ndim == 2:
                self._take_table(data)
        if len(self._members) > MAX_COLUMNS:
            raise DataError(f"{path}: holds {len(self._members)} arrays, at most {MAX_COLUMNS} are allowed")

    def column(self, wanted: Wanted) -> NDArray[Any]:
        """The 1-D array of a column, of a numeric or text dtype."""
        others = [name for name in self._members if self._data is None or name not in ("data", "columns")]
        if self._data is None:
            array = self._array(others[locate(wanted, others, len(others), self.path)])
        elif wanted.column in others:
            array = self._array(str(wanted.column))
        else:
            index = locate(wanted, self._data_names, self._data.shape[1], self.path)
            array = self._data[:, index]
        if array.ndim != 1:
            raise DataError(
                f"{self.path}: the array of {wanted.key} has {array.ndim} dimensions, a column has one",
                "store one 1-D array a column, or a 2-D array named data",
            )
        return array

    def _take_table(self, data: NDArray[Any]) -> None:
        self._data = data
        if "columns" in self._members:
            names = self._array("columns")
            if names.ndim != 1 or names.dtype.kind not in _TEXT_KINDS or len(names) != data.shape[1]:
                raise DataError(
                    f"{self.path}: columns must be a 1-D array of {data.shape[1]} names, one a column of data",
                    "write it again with matching names",
                )
            self._data_names = [str(name) for name in _as_text(names, self.path)]

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            info = self._members[name]
            self._left_bytes -= info.file_size
            if self._left_bytes < 0:
                raise DataError(
                    f"{self.path}: its arrays take more than {MAX_ARCHIVE_BYTES} bytes",
                    "split it into several files",
                )
            with self._archive.open(info) as stream:
                self._arrays[name] = _load(stream, info.file_size, f"{self.path}: array {name}")
        return self._arrays[name]


def _load(stream: IO[bytes], size_bytes: int, where: str) -> NDArray[Any]:
    """One array in NPY format 1 or 2, whose header must agree with the declared size of its member."""
    magic, length = stream.read(8), 0
    if magic in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
    header = _HEADER.fullmatch(stream.read(min(length, MAX_HEADER_BYTES)))
    if header is None:
        raise DataError(
            f"{where}: is not an array of one or two dimensions in NPY format", "write it with numpy.savez_compressed"
        )
    name, fortran, digits = (group.decode("ascii") for group in header.groups())
    shape = tuple(int(length) for length in digits.replace(" ", "").split(",") if length)
    dtype = _dtype(name, where)
    declared = math.prod(shape) * dtype.itemsize
    if declared != size_bytes - stream.tell() or max(shape, default=0) > MAX_ARCHIVE_BYTES:
        raise DataError(f"{where}: its size does not fit its shape {shape}", "the file is damaged: write it again")
    data = stream.read(declared)
    if len(data) != declared:
        raise DataError(f"{where}: is cut off", "copy the file again")
    if declared == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran == "True" else "C")


def _dtype(name: str, where: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        dtype = np.dtype(np.object_)
    if dtype.kind not in _NUMERIC_KINDS + _TEXT_KINDS:
        raise DataError(
            f"{where}: holds {name}, neither numbers nor text", "store numbers, or text of a fixed length"
        )
    return dtype


def _as_block(table: _Archive, selection: Selection) -> Block:
    path = table.path
    numbers = [_as_numbers(table.column(wanted), wanted, path) for wanted in selection.numbers]
    texts = [_as_text(table.column(wanted), path) for wanted in selection.texts]
    rows = len((*numbers, *texts)[0])
    series = order = None
    if selection.series:
        series = _as_text(table.column(selection.series), path)
    if selection.order:
        order = as_order(_as_text(table.column(selection.order), path), f"{path} ({selection.order.key})")
    for array in [*numbers, *texts, series, order]:
        if array is not None and len(array) != rows:
            raise DataError(f"{path}: its columns have {rows} and {len(array)} rows", "store columns of one length")
    if rows * len(selection.values) > MAX_CELLS:
        raise DataError(f"{path}: holds more than {MAX_CELLS} values", "split it into several files")
    return Block(
        numbers=np.stack(numbers, axis=1) if numbers else np.empty((rows, 0)),
        texts=np.stack(texts, axis=1) if texts else np.empty((rows, 0), np.str_),
        series=series,
        order=order,
    )


def _as_numbers(array: NDArray[Any], wanted: Wanted, path: str) -> Floats:
    if array.dtype.kind not in _NUMERIC_KINDS:
        raise DataError(f"{path}: column {wanted.column!r} ({wanted.key}) holds text", "store it as numbers")
    return array.astype(np.float64)


def _as_text(array: NDArray[Any], path: str) -> Texts:
    if array.dtype.kind == "S":
        try:
            return np.strings.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{path}: holds text that is not UTF-8", "store text as numpy's str_") from None
    return np.strings.strip(array) if array.dtype.kind == "U" else array.astype(np.str_)
