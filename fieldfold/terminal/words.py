"""Lines for a terminal: text in pieces, each with a role that a theme may colour. Pure; knows no terminal library.

A role never carries what the text does not say: whoever has no colours reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from fieldfold.cli.figures import plain

Role: TypeAlias = Literal["", "dim", "strong", "good", "warn", "bad", "key"]
Piece: TypeAlias = tuple[str, Role]
Line: TypeAlias = tuple[Piece, ...]
Words: TypeAlias = tuple[Line, ...]
MORE = "…"


def line(*parts: str | Piece) -> Line:
    """A line of pieces; bare text has no role."""
    return tuple((part, "") if isinstance(part, str) else part for part in parts if part)


def text(of: Line) -> str:
    """The line without roles."""
    return "".join(piece for piece, _ in of)


def lines_of(words: Iterable[Line]) -> str:
    """All lines as plain text, for the clipboard, a test, or whoever has no terminal."""
    return "\n".join(text(each).rstrip() for each in words)


def fit(of: str, width: int) -> str:
    """`of` in at most `width` characters; what is cut off shows as an ellipsis."""
    return of if len(of) <= width else of[: max(0, width - 1)] + MORE[: max(0, width)]


def fit_end(of: str, width: int) -> str:
    """The same, but the end is kept, as of a path."""
    return of if len(of) <= width else MORE[: max(0, width)] + of[len(of) - max(0, width - 1) :]


def cut(of: Line, width: int) -> Line:
    """A line in at most `width` characters, its pieces with their roles."""
    if len(text(of)) <= width:
        return of
    kept: list[Piece] = []
    room = max(0, width - 1)
    for piece, role in of:
        kept.append((piece[:room], role))
        room -= len(kept[-1][0])
    return line(*kept, MORE[: max(0, width)])


def difference(before: Line, after: Line) -> tuple[int, int]:
    """The part that differs: from the first character that does to the end of the last, in words or in role."""
    cells, former = ([(character, role) for piece, role in each for character in piece] for each in (after, before))
    longest, shortest = max(len(cells), len(former)), min(len(cells), len(former))
    first = next((at for at in range(shortest) if cells[at] != former[at]), shortest)
    if len(cells) != len(former):
        return first, longest
    last = next((at for at in range(longest, first, -1) if cells[at - 1] != former[at - 1]), first)
    return first, last


def foreign(of: str, width: int = 2000) -> str:
    """Words from elsewhere: nothing that a terminal would obey, and no more than fits."""
    return fit(plain(of), width)


def counted(count: int, noun: str) -> str:
    """`1 version`, `2 versions`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def wrapped(of: str, width: int, indent: str = "") -> list[str]:
    """`of` in lines of at most `width`, broken between words; later ones begin with `indent`."""
    found, current = [], ""
    for word in of.split():
        joined = f"{current} {word}" if current.strip() else f"{current}{word}"
        if len(joined) > width and current.strip():
            found.append(current)
            joined = f"{indent}{word}"
        current = joined
    return [fit(each, width) for each in (*found, current)] if of.strip() else []


def columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side: a negative width is right-aligned; what is too long is cut off."""
    fitting = [
        cell if len(cell) <= abs(width) else fit(cell, abs(width)) for cell, width in zip(cells, widths, strict=True)
    ]
    return " ".join(
        cell.rjust(-width) if width < 0 else cell.ljust(width) for cell, width in zip(fitting, widths, strict=True)
    )
