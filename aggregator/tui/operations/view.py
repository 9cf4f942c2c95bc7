"""The operations as rows. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aggregator.tui.snapshot import Snapshot
from fieldfold.terminal.words import Line, columns, foreign, line

_WIDTHS = (14, 10, 12)
"""Time, who, command."""


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the operations."""
    return columns(("when", "who", "asked to"), _WIDTHS) + " what came of it"


def rows(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """The newest first."""
    return [
        line(
            columns(
                (
                    time.strftime("%m-%d %H:%M:%S", time.localtime(each.at)),
                    foreign(each.who),
                    foreign(each.command),
                ),
                _WIDTHS,
            ),
            f" {foreign(each.result)}",
        )
        for each in snapshot.operations
    ]
