"""What the screens are drawn from: one frozen picture of the daemon, or of its absence."""

from __future__ import annotations

from fieldfold.logs import Entry
from fieldfold.terminal.attachment import Picture
from node_app.records import Adoption, Carried, Decided, Drift, Run, Sample
from node_app.status import NodeStatus


class Snapshot(Picture, frozen=True, kw_only=True):
    """All that is known.

    Attributes:
        status: None before a daemon has answered.
        cpu_percent: of one core, over the last ten seconds or so; None before there are two statuses.
        history: newest first; the others oldest first.
    """

    status: NodeStatus | None = None
    cpu_percent: float | None = None
    history: tuple[Decided, ...] = ()
    outbox: tuple[Carried, ...] = ()
    runs: tuple[Run, ...] = ()
    adoptions: tuple[Adoption, ...] = ()
    log: tuple[Entry, ...] = ()
    drift: tuple[Drift, ...] = ()
    sample: tuple[Sample, ...] = ()


def served_words(version: int | None, *, personal: bool) -> str:
    """The model that is served: a version, or this gateway's own that was pulled towards it."""
    return "none" if version is None else f"v{version} personal" if personal else f"v{version}"
