"""The panes of the fleet, and its nodes as rows. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aggregator.records import NodeView
from aggregator.tui.orders import Order
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import duration, number, size
from fieldfold.terminal.glyphs import curve
from fieldfold.terminal.words import Line, Piece, Role, Words, columns, foreign, line

CURVE_COLUMNS = 30
HOUR_S = 3600.0
SLOW_TIMES = 10.0
WIDE = 100
LEAST_LEFT, MOST_LEFT, WHY = 22, 40, 22
"""Columns of name and state together, and of the reason on a wide terminal."""
WIDTHS: Final[dict[Order, int]] = {
    "version": 7,
    "stale": 5,
    "pace": 7,
    "weight": 6,
    "moves": 6,
    "accepted": 8,
    "refused": 7,
    "sent": 8,
    "seen": 7,
}
"""Of the figures, in the order in which they stand."""
GIVEN_UP: Final[tuple[Order, ...]] = ("moves", "accepted", "stale", "sent", "seen")
"""What a narrow terminal does without, the first first; never what the nodes are sorted by."""
_SHORT: Final = {"needs attention": "attention!", "reading data": "reading", "learning for itself": "learning"}
_ROLES: Final[dict[str, Role]] = {"learning": "good", "following": "good", "attention!": "bad", "excluded": "warn"}


def model(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """How good the fleet's model is, and how fast it moves."""
    status = snapshot.status
    if status is None:
        return ()
    if not status.task:
        return (line("no task yet: fieldfold task publish X.bundle"),)
    scores = [each.score for each in snapshot.versions]
    drawn = curve(scores, max(8, min(CURVE_COLUMNS, width - 46)), 1, snapshot.glyphs)[0]
    best = best_of(snapshot)
    said = f"   best {number(best[1])} at v{best[0]}" if best else ""
    saved = f" (float32: {size(status.float32_bytes)})" if status.float32_bytes else ""
    return (
        line(f"held-out {foreign(status.metric)} ", (number(status.score), "strong"), f"  {drawn}{said}"),
        line(
            f"{status.accepted:,} updates accepted, {status.rejected:,} refused"
            f"   stale {status.staleness_median:.0f}, at most {status.staleness_max}   {_releases(snapshot)}"
        ),
        line(f"{size(status.bytes_received)} received{saved}   {size(status.bytes_published)} published"),
    )


def best_of(snapshot: Snapshot) -> tuple[int, float] | None:
    """The best of the versions shown that were evaluated, with its score."""
    known = [(each.version, each.score) for each in snapshot.versions if each.score is not None]
    if not known or snapshot.status is None:
        return None
    sign = -1 if snapshot.status.better == "higher" else 1
    return min(known, key=lambda pair: sign * pair[1])


def _releases(snapshot: Snapshot) -> str:
    lately = sum(each.at > snapshot.now - HOUR_S for each in snapshot.versions)
    return f"{lately} releases/h" if lately else "no release for an hour"


def state_of(node: NodeView) -> str:
    """One word or two."""
    if node.excluded_by:
        return "excluded"
    if node.presence is None:
        return "not heard"
    state = foreign(node.presence.state, 40)
    if state == "offline":
        away_s = node.last_update_age_s
        return "away" if away_s is None else f"away {duration(away_s)}"
    return _SHORT.get(state, "waiting" if state.startswith("waiting") else state)


def in_order(snapshot: Snapshot) -> list[NodeView]:
    """The nodes as they are sorted: what is unusual comes first, and nodes without a value last."""
    if snapshot.status is None:
        return []
    moves = movement(snapshot)
    ways: dict[Order, Callable[[NodeView], Any]] = {
        "node": lambda node: node.node,
        "state": _by_state,
        "version": lambda node: _version(node) if _version(node) is not None else float("inf"),
        "stale": lambda node: -(-1 if node.staleness is None else node.staleness),
        "pace": lambda node: -(node.pace_s or 0.0),
        "weight": lambda node: -snapshot.voices.get(node.node, 0.0),
        "moves": lambda node: -moves.get(node.node, 0.0),
        "accepted": lambda node: -node.accepted,
        "refused": lambda node: -node.rejected,
        "sent": lambda node: -node.bytes_on_wire,
        "seen": lambda node: -(float("inf") if node.last_update_age_s is None else node.last_update_age_s),
    }
    return sorted(snapshot.status.nodes, key=ways[snapshot.order])


def _by_state(node: NodeView) -> tuple[int, str]:
    """What a person should see to, what is out, what is away, and then the others."""
    state = state_of(node)
    unusual = [state == "attention!", state == "excluded", state.startswith("away"), state == "not heard"]
    return (unusual.index(True) if any(unusual) else len(unusual), state)


def names(snapshot: Snapshot) -> Sequence[str]:
    """The same, as names."""
    return [node.node for node in in_order(snapshot)]


def shown(snapshot: Snapshot, width: int) -> list[Order]:
    """The figures that there is room for."""
    kept = list(WIDTHS)
    for name in GIVEN_UP:
        if sum(WIDTHS[each] + 1 for each in kept) + LEAST_LEFT <= width:
            break
        if name != snapshot.order:
            kept.remove(name)
    return kept


def heading(snapshot: Snapshot, width: int) -> str:
    """Above the nodes; the column by which they are sorted is in capitals."""
    figures = shown(snapshot, width)
    orders: list[Order] = ["node", "state", *figures]
    marked = [each.upper() if each == snapshot.order else each for each in orders]
    return columns(marked, _widths(figures, width)) + ("  why not" if width >= WIDE else "")


def rows(snapshot: Snapshot, width: int) -> Sequence[Line]:
    """One node a row."""
    figures, moves, found = shown(snapshot, width), movement(snapshot), []
    name_width, state_width, *widths = _widths(figures, width)
    for node in in_order(snapshot):
        state = state_of(node)
        role: Role = _ROLES.get(state, "dim" if state.startswith(("away", "not")) else "")
        cells = columns([_SAID[each](node, snapshot.voices, moves) for each in figures], widths)
        why = f"  {foreign(node.last_reason)}" if width >= WIDE else ""
        left: Piece = (columns((node.node,), (name_width,)), "strong")
        found.append(line(left, " ", (columns((state,), (state_width,)), role), " ", cells, (why, "dim")))
    return found


def movement(snapshot: Snapshot) -> dict[str, float]:
    """Node -> its share in what moves the model: its weight times the usual length of its updates."""
    nodes = snapshot.status.nodes if snapshot.status else ()
    norms = {node.node: node.norm for node in nodes if node.norm is not None}
    usual = statistics.median(norms.values()) if norms else 1.0  # of whom nothing was heard since the program's start
    moved = {node: weight * norms.get(node, usual) for node, weight in snapshot.voices.items()}
    total = sum(moved.values())
    return {node: each / total for node, each in moved.items()} if total > 0 else {}


def short(seconds: float | None) -> str:
    """A time in few characters."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 60 else duration(seconds)


def percent(share: float | None) -> str:
    """A share in few characters."""
    return "-" if share is None else f"{100 * share:.3g} %"


def slow(nodes: Sequence[NodeView]) -> list[NodeView]:
    """Those that are many times slower than usual."""
    paced = [node for node in nodes if node.pace_s is not None]
    if len(paced) < 3:
        return []
    usual = statistics.median(node.pace_s or 0.0 for node in paced)
    return [node for node in paced if (node.pace_s or 0.0) > SLOW_TIMES * usual > 0]


def _version(node: NodeView) -> int | None:
    return node.presence.version if node.presence is not None else None


_SAID: Final[dict[Order, Callable[[NodeView, Mapping[str, float], Mapping[str, float]], str]]] = {
    "version": lambda node, *_: "-" if (version := _version(node)) is None else str(version),
    "stale": lambda node, *_: "-" if node.staleness is None else str(node.staleness),
    "pace": lambda node, *_: short(node.pace_s),
    "weight": lambda node, weights, _: percent(weights.get(node.node)),
    "moves": lambda node, _, moves: percent(moves.get(node.node)),
    "accepted": lambda node, *_: f"{node.accepted:,}",
    "refused": lambda node, *_: f"{node.rejected:,}",
    "sent": lambda node, *_: size(node.bytes_on_wire),
    "seen": lambda node, *_: short(node.last_update_age_s),
}
"""(node, weights, movement) -> what stands in a column."""


def _widths(figures: Sequence[Order], width: int) -> list[int]:
    """Name and state share what the figures leave."""
    left = width - sum(WIDTHS[each] + 1 for each in figures) - (WHY if width >= WIDE else 0)
    room = min(MOST_LEFT, max(LEAST_LEFT, left)) - 1
    state = min(14, max(10, room * 2 // 5))
    return [room - state, state, *(-WIDTHS[each] for each in figures)]
