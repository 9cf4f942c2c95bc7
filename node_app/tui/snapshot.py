"""What the screens are drawn from: one frozen picture of the daemon, or of its absence."""

from __future__ import annotations

import msgspec

from fieldfold.control.protocol import Rights
from fieldfold.logs import Entry
from fieldfold.terminal.glyphs import Glyphs
from node_app.records import Adoption, Carried, Decided, Drift, Run
from node_app.status import NodeStatus

NO_RIGHTS = Rights(may_command=False, why_not="no daemon answers", views=(), commands=())


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known.

    Attributes:
        now: seconds since 1970 when this was put together.
        lost: why no daemon answers, in one line; empty while one does. Everything else is then what was last heard.
        lost_at: since when, seconds since 1970.
        status: None before a daemon has answered.
        cpu_percent: of one core, over the last ten seconds or so; None before there are two statuses.
        history: newest first; the others oldest first.
        glyphs: that this terminal can draw.
    """

    now: float = 0.0
    lost: str = ""
    lost_at: float = 0.0
    rights: Rights = NO_RIGHTS
    status: NodeStatus | None = None
    cpu_percent: float | None = None
    history: tuple[Decided, ...] = ()
    outbox: tuple[Carried, ...] = ()
    runs: tuple[Run, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    log: tuple[Entry, ...] = ()
    drift: tuple[Drift, ...] = ()
    glyphs: Glyphs = "braille"
