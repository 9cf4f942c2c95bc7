"""What needs a person, and what was refused. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from aggregator.records import AggregatorStatus, NodeView
from aggregator.tui.nodes.view import best_of, movement, slow
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import duration, number
from fieldfold.terminal import needs
from fieldfold.terminal.needs import Alert
from fieldfold.terminal.words import Line, Words, columns, counted, foreign, line

FEW = 3
MANY_REFUSED, MOST_REFUSED = 10, 0.5
LOUD, FLEET_OF = 0.5, 3
WORSE, UNEVEN = 0.1, 0.5
_WIDTHS = (16, 14, -7)
"""Node, code, number."""


def found(snapshot: Snapshot) -> list[Alert]:
    """The urgent first."""
    everything = [*_of_the_aggregator(snapshot), *_of_the_model(snapshot), *_of_the_nodes(snapshot)]
    return sorted(everything, key=lambda alert: not alert.urgent)


def shown(snapshot: Snapshot, width: int, height: int) -> Words:
    """The alerts as lines."""
    return needs.lines(found(snapshot), width, height, calm=snapshot.status is not None)


def _of_the_aggregator(snapshot: Snapshot) -> Iterator[Alert]:
    status = snapshot.status
    if snapshot.lost:
        reason, _, hint = foreign(snapshot.lost).partition("; ")
        since = f", for {duration(snapshot.now - snapshot.lost_at)} now" if status else ""
        yield Alert(f"{reason}{since}: {hint}. It is asked again every second.", "?", urgent=True)
    if status is None or snapshot.lost:
        return
    if status.state == "storage full":
        yield Alert(f"intake stands still: {foreign(status.detail)}", "l", urgent=True)
    if not status.connected:
        yield Alert(
            f"the broker is not reached: {foreign(status.link.removeprefix('down: '))}."
            " Gateways keep what they learn.",
            "?",
            urgent=True,
        )
    if status.state == "waiting for a task":
        yield Alert("there is no task: fieldfold task publish X.bundle", "?")
    if status.state == "waiting for statistics":
        yield Alert(f"the model begins when gateways have sent statistics: {status.statistics_from} have", "n")
    if status.state == "paused":
        yield Alert(f"the model stays at v{status.version}: p goes on, e releases what waits", "p")


def _of_the_model(snapshot: Snapshot) -> Iterator[Alert]:
    status = snapshot.status
    if status is None:
        return
    if status.evaluation_trouble:
        yield Alert(f"there are no held-out scores: {foreign(status.evaluation_trouble)}", "r")
    best = best_of(snapshot)
    if best is not None and status.score is not None and abs(status.score - best[1]) > WORSE * abs(best[1]):
        yield Alert(
            f"held-out {foreign(status.metric)} {number(status.score)} is worse than {number(best[1])} at v{best[0]};"
            " b on Releases goes back",
            "r",
        )
    if (least := next((each for each in status.classes if each.name == status.worst_class), None)) is not None:
        usual = statistics.median(each.score for each in status.classes if each.score is not None)
        if least.score is not None and abs(least.score - usual) > UNEVEN * abs(usual):
            yield Alert(
                f"{foreign(status.metric)} {number(least.score)} for {foreign(least.name)}, which"
                f" {counted(least.num_nodes, 'node')} see; {number(usual)} for the median class",
                "n",
            )
    if status.proof is not None and status.proof.state == "different":
        yield Alert("the ledger is not what was released; restore a backup", "l", urgent=True)


def _of_the_nodes(snapshot: Snapshot) -> Iterator[Alert]:
    status = snapshot.status
    if status is None:
        return
    yield from _attacks(snapshot, status)
    troubled = [
        node for node in status.nodes if node.presence is not None and node.presence.state == "needs attention"
    ]
    if troubled:
        detail = foreign(troubled[0].presence.detail if troubled[0].presence else "", 200)
        yield Alert(f"{_named(troubled)} cannot go on: {detail}", "n")
    if away := [node for node in status.nodes if node.presence is not None and node.presence.state == "offline"]:
        yield Alert(f"{len(away)} of {status.nodes_known} nodes are away: {_named(away)}", "n")
    if tardy := slow(status.nodes):
        yield Alert(f"{_named(tardy)}: more than ten times slower than usual; they count all the same", "n")


def _attacks(snapshot: Snapshot, status: AggregatorStatus) -> Iterator[Alert]:
    """What an honest node does not do."""
    for node in sorted(status.nodes, key=lambda node: -node.rejected)[:FEW]:
        decided = node.accepted + node.rejected
        if node.rejected >= MANY_REFUSED and node.rejected >= MOST_REFUSED * decided and not node.excluded_by:
            reason = foreign(node.last_reason, 120)
            yield Alert(
                f"{node.node}: {node.rejected:,} of {decided:,} updates refused: {reason}; x excludes it", "a"
            )
    if deferred := status.reasons.get("too_many", 0):
        yield Alert(f"{deferred:,} updates put off: some node sends more than verify.max_per_minute", "a")
    if status.malformed:
        yield Alert(f"{counted(status.malformed, 'message')} could not be read; the log names who sent them", "a")
    if snapshot.voices and len(snapshot.voices) >= FLEET_OF:
        name, share = max(movement(snapshot).items(), key=lambda pair: pair[1])
        if share > LOUD:
            yield Alert(f"{name} makes up {100 * share:.0f} % of what moves the model", "n")


def _named(nodes: Sequence[NodeView]) -> str:
    names = ", ".join(node.node for node in nodes[:FEW])
    return names if len(nodes) <= FEW else f"{names} and {len(nodes) - FEW} more"


def heading(snapshot: Snapshot, width: int) -> str:  # noqa: ARG001 - a heading's signature
    """Above the refused updates."""
    return columns(("refused of", "for", "update"), _WIDTHS) + "  why"


def refused(snapshot: Snapshot, width: int) -> Sequence[Line]:  # noqa: ARG001 - a list's signature
    """The newest refusals."""
    return [
        line(columns((each.node, foreign(each.code), f"#{each.sequence}"), _WIDTHS), f"  {foreign(each.reason)}")
        for each in snapshot.rejections
    ]
