"""The panes of the network screen. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fieldfold.cli.figures import duration, size
from fieldfold.terminal.words import Line, Words, columns, counted, foreign, line, wrapped
from node_app.records import Carried
from node_app.tui.frame import link_words
from node_app.tui.overview.view import host_of
from node_app.tui.snapshot import Snapshot

_WIDTHS = (-7, -9, -9, 18)
"""Number, base version, size, age."""


def broker(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """The connection."""
    status = snapshot.status
    if status is None:
        return ()
    lines = [line(foreign(host_of(status.broker))), line(link_words(status))]
    lines += map(line, wrapped(foreign(status.link), width, "  "))
    if status.link_up_s is not None:
        lines.append(line(f"up {duration(status.link_up_s)}"))
    lines.append(line(f"{counted(status.reconnects, 'reconnect')} in {duration(status.uptime_s)}"))
    if status.round_trip_s is not None and status.connected:
        lines.append(line(f"round trip {1000 * status.round_trip_s:.0f} ms"))
    if status.fetching:
        lines.append(line(f"fetching {foreign(status.fetching)}"))
    return tuple(lines)


def traffic(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001
    """Bytes since the daemon's start, and what float32 would have cost."""
    status = snapshot.status
    if status is None:
        return ()
    receipt = foreign(status.last_receipt) or "no receipt yet"
    return (
        line(columns(("", "sent", "float32", "share"), (5, -9, -9, -7))),
        line(_traffic("up", status.bytes_up, status.float32_up)),
        line(_traffic("down", status.bytes_down, status.float32_down)),
        line(f"{status.accepted} accepted, {status.rejected} rejected"),
        *map(line, wrapped(receipt, width, "  ")[:2]),
    )


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the outbox."""
    return columns(("update", "from", "bytes", "made"), _WIDTHS) + " on its way"


def outbox(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """What waits for its receipt, oldest first."""
    if snapshot.status is None or not snapshot.status.outbox:
        return ()
    rows = []
    for each in snapshot.outbox:
        update = each.update
        made = f"{duration(snapshot.now - update.created_at)} ago"
        cells = (f"#{update.sequence}", f"v{update.base_version}", size(update.size_bytes), made)
        rows.append(line(columns(cells, _WIDTHS), " ", _way(each)))
    return rows


def _way(each: Carried) -> str:
    """How far it has got."""
    if not each.update.has_left:
        return "not sent yet"
    if each.chunks:
        return f"{each.chunks} of {each.of_chunks} chunks"
    return "sent, waits for its receipt"


def _traffic(name: str, sent: int, plain: int) -> str:
    share = f"{100 * sent / plain:.1f} %" if plain else "-"
    return columns((name, size(sent), size(plain), share), (5, -9, -9, -7))
