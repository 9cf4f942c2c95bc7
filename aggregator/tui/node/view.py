"""The panes of one node. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aggregator.records import NodeView, Taken
from aggregator.tui.nodes.view import movement, percent, short, state_of
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import duration, number, size
from fieldfold.terminal.words import Line, Words, columns, counted, foreign, line, wrapped

_WIDTHS = (-7, 8, 9, -6, -9, -9)
"""Number, time, decision, staleness, norm, size."""


def the_node(snapshot: Snapshot) -> NodeView | None:
    """The one that is looked at."""
    nodes = snapshot.status.nodes if snapshot.status else ()
    return next((node for node in nodes if node.node == snapshot.node), None)


def says(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """What the node says of itself."""
    node = the_node(snapshot)
    if node is None or node.presence is None:
        return (line(("it has not said anything", "dim")),) if node else ()
    told = node.presence
    version = "none" if told.version is None else f"v{told.version}"
    lines = [
        line((foreign(told.state), "strong"), f"   holds {version}"),
        line(f"{foreign(told.metric)} {number(told.score)} on its own data{_least(snapshot)}"),
        line(f"loss {number(told.loss)}   {number(told.steps_per_s)} steps/s"),
        line(f"{counted(told.outbox, 'update')} in its outbox"),
        line(f"{size(told.bytes_up)} up   {size(told.bytes_down)} down"),
        line((foreign(told.software), "dim")),
    ]
    return (*lines, *(line((each, "warn")) for each in wrapped(foreign(told.detail), width)))


def _least(snapshot: Snapshot) -> str:
    """Its score of the class that fares worst in the fleet, where it holds any of it."""
    status = snapshot.status
    newest = next((each.class_scores for each in snapshot.of_node if each.accepted), ())
    if status is None or len(newest) != len(status.classes):
        return ""
    for each, (score, num_examples) in zip(status.classes, newest, strict=True):
        if each.name == status.worst_class and num_examples:
            return f", {number(score)} for {foreign(each.name)}"
    return ""


def counts(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001
    """What the aggregator knows of it."""
    node = the_node(snapshot)
    if node is None:
        return (line("a node is chosen on Nodes, with enter"),)
    weight = snapshot.voices.get(node.node)
    seen = "never" if node.last_update_age_s is None else f"{duration(node.last_update_age_s)} ago"
    lines = [
        line((node.node, "strong"), f"   {state_of(node)}"),
        line(f"{node.accepted:,} accepted, {node.rejected:,} refused"),
        line(f"pace {short(node.pace_s)}   seen {seen}"),
        line(f"weight {percent(weight)}   moves {percent(movement(snapshot).get(node.node))}"),
        line(f"{size(node.bytes_on_wire)} of updates"),
    ]
    if node.excluded_by:
        lines.append(line((f"excluded by {foreign(node.excluded_by)}: x readmits it", "warn")))
    elif node.last_reason:
        lines += (line((each, "warn")) for each in wrapped(f"refused: {foreign(node.last_reason)}", width, "  "))
    return tuple(lines)


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the updates."""
    return columns(("update", "decided", "decision", "stale", "norm", "bytes"), _WIDTHS) + "  why"


def updates(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """The newest decisions on its updates."""
    return [decision(each, columns((f"#{each.sequence}",), _WIDTHS[:1])) for each in snapshot.of_node]


def decision(each: Taken, left: str) -> Line:
    """A decision as a row."""
    at = time.strftime("%H:%M:%S", time.localtime(each.at))
    word = "accepted" if each.accepted else "refused"
    figures = columns((str(each.staleness), number(each.norm), size(each.size_bytes)), _WIDTHS[3:])
    why = f"  {foreign(each.reason)}" if each.reason else ""
    return line(f"{left} {at} ", (word.ljust(9), "good" if each.accepted else "bad"), f" {figures}{why}")
