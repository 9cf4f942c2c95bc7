"""Where in an author's own files something was done: neither in Python, nor in a library, nor in fieldfold."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fieldfold

_FIELDFOLD = str(Path(fieldfold.__file__).parent)
_LIBRARIES = (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), _FIELDFOLD)
_NOT_THE_AUTHORS = tuple(f"{Path(folder).resolve()}/" for folder in _LIBRARIES)


def is_the_authors(file: str) -> bool:
    """Whether code in `file` was written by a task's author."""
    return not file.startswith("<") and not str(Path(file).resolve()).startswith(_NOT_THE_AUTHORS)


def innermost(frames: Iterable[traceback.FrameSummary]) -> str | None:
    """`FILE:LINE` of the last of `frames`, outermost first, that is the author's; None when none is."""
    lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if is_the_authors(frame.filename)]
    return lines[-1] if lines else None


def raised_at(error: BaseException) -> str | None:
    """`FILE:LINE` of the author's line that led to `error`."""
    if isinstance(error, SyntaxError) and error.filename is not None and is_the_authors(error.filename):
        return f"{error.filename}:{error.lineno}"
    return innermost(traceback.extract_tb(error.__traceback__))


def told(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = (text.strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"


def defined_at(function: Callable[..., Any]) -> str | None:
    """`FILE:LINE` where a function of the author's begins; None for a library's."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or not is_the_authors(code.co_filename):
        return None
    return f"{code.co_filename}:{code.co_firstlineno}"
