"""The lines of the log. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from fieldfold.terminal.words import Line, Role, foreign, line
from node_app.tui.snapshot import Snapshot

_ROLES: Final[dict[str, Role]] = {"warning": "warn", "error": "bad", "critical": "bad", "debug": "dim"}


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the lines."""
    return "time     level    what the daemon said since its start"


def entries(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """Oldest first."""
    rows = []
    for each in snapshot.log:
        at = time.strftime("%H:%M:%S", time.localtime(each.at))
        level = foreign(each.level, 8)
        rows.append(line(f"{at} ", (level.ljust(8), _ROLES.get(level, "")), f" {foreign(each.text)}"))
    return rows
