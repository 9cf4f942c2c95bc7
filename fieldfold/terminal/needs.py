"""What needs a person, as lines: what to do, and the key of the screen that shows more. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fieldfold.terminal.words import Line, Piece, Words, line, wrapped


class Alert(msgspec.Struct, frozen=True):
    """One thing.

    Attributes:
        key: of the screen that shows more.
        urgent: nothing is learned, or nothing arrives, until it is seen to.
    """

    words: str
    key: str
    urgent: bool = False


def lines(found: Sequence[Alert], width: int, height: int, *, calm: bool) -> Words:
    """The alerts in their order; what does not fit is counted.

    Args:
        found: the urgent first.
        width: columns.
        height: rows.
        calm: whether to say `nothing` where there are none.
    """
    if not found:
        return (line(("nothing", "good")),) if calm else ()
    told: list[Line] = []
    begins: list[int] = []
    for alert in found:
        mark: Piece = ("! ", "bad" if alert.urgent else "warn")
        body = wrapped(alert.words, width - 6)
        if told and len(told) + len(body) > height:
            left = len(found) - sum(at < height - 1 for at in begins)
            return (*told[: height - 1], line((f"  and {left} more", "warn")))
        begins.append(len(told))
        for index, each in enumerate(body):
            key: Piece = (f"   {alert.key}", "key") if index == 0 else ("", "")
            told.append(line(mark if index == 0 else "  ", each.ljust(width - 6), key))
    return tuple(told[: max(1, height)])
