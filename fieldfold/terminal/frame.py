"""The line above every screen and the one below. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fieldfold.terminal.words import Piece, Words, fit, line

LEAST_LEFT = 12


def header(left: str, right: Sequence[Piece], width: int) -> Words:
    """Where one is, and how it is; of the right half the first piece is never given up, the left half before it."""
    kept = list(right)
    while len(kept) > 1 and _width(kept) > width:
        kept.pop()
    room = max(0, width - _width(kept) - 2)
    shown = fit(left, room) if room >= LEAST_LEFT else ""
    pieces: list[str | Piece] = [shown, " " * max(1, width - len(shown) - _width(kept))]
    for position, piece in enumerate(kept):
        pieces += ["   " if position else "", piece]
    return (line(*pieces),)


def keys(rooms: Sequence[tuple[str, str]], possible: Sequence[tuple[str, str]], width: int) -> Words:
    """What is possible here, as (key, words); help and quitting come last, and help always.

    Where there is no room for all, leaving goes unsaid first, then the names of the other screens.
    """
    last = [("?", "Help"), ("q", "Quit")]
    short = [(" ".join(key for key, _ in rooms), "Screens")] if rooms else []
    for shown in ([*rooms, *possible, *last], [*rooms, *possible, last[0]], [*short, *possible, *last]):
        if _needs(shown) <= width:
            break
    while _needs(shown) > width and len(shown) > 1:
        shown.pop(-1 if shown[-1] == last[1] else -2)
    pieces: list[str | Piece] = []
    for position, (key, words) in enumerate(shown):
        pieces += ["  " if position else "", (key, "key"), f" {words}"]
    return (line(*pieces),)


def _needs(shown: Sequence[tuple[str, str]]) -> int:
    """Columns, with two between entries."""
    return sum(len(key) + len(words) + 3 for key, words in shown) - 2


def _width(pieces: Sequence[Piece]) -> int:
    return sum(len(words) for words, _ in pieces) + 3 * (len(pieces) - 1)
