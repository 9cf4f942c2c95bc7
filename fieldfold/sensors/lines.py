"""A text file, plain or gzipped, as blocks of lines; never more than a block in memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fieldfold.errors import DataError
from fieldfold.sensors.source import MAX_FILE_BYTES, MAX_LINE_BYTES

BLOCK_BYTES = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"


def line_blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Blocks of whole lines, each with the number of its first line, counted from 1.

    Raises:
        DataError: when the file cannot be read, is damaged, is not UTF-8 text, or exceeds MAX_FILE_BYTES or
            MAX_LINE_BYTES.
    """
    first, total_bytes, carry = 1, 0, b""
    for chunk in _chunks(path):
        total_bytes += len(chunk)
        if total_bytes > MAX_FILE_BYTES:
            raise DataError(f"{path}: holds more than {MAX_FILE_BYTES} bytes of text", "split it into several files")
        head, newline, carry = (carry + chunk).rpartition(b"\n")
        if len(carry) > MAX_LINE_BYTES:
            raise DataError(
                f"{path}: a line is longer than {MAX_LINE_BYTES} bytes", "is this a text file with one row a line?"
            )
        if newline:
            lines = _decode(head, first, path)
            yield first, lines
            first += len(lines)
    if carry:
        yield first, _decode(carry, first, path)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as raw:
            zipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if zipped else raw
            while chunk := stream.read(BLOCK_BYTES):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is damaged or cut off: {error}", "copy it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", "check the file and its permissions") from None


def _decode(data: bytes, first: int, path: Path) -> list[str]:
    """The lines of `data` without their ends; the byte order mark goes too."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first + data.count(b"\n", 0, error.start)
        raise DataError(f"{path}, line {line}: is not UTF-8 text", "save the file as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: holds binary data", "data.files must name delimited text or NPZ files")
    lines = text.replace("\r\n", "\n").removesuffix("\r").split("\n")
    if first == 1:
        lines[0] = lines[0].removeprefix("\ufeff")
    return lines
