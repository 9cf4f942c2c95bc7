"""What needs a person, with what to do about it and the key of the screen that shows more. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fieldfold.cli.figures import duration
from fieldfold.terminal import needs
from fieldfold.terminal.needs import Alert
from fieldfold.terminal.words import Words, foreign
from node_app.tui.snapshot import Snapshot, served_words

DROPPED_SHARE = 0.01
FEW_VALIDATION_WINDOWS = 20
FAR_BEHIND = 20
DRIFT_STDS = 2.0
MOST_REJECTED = 0.5
OTHER_SERIES = "series of other gateways"
"""What node.toml left out on purpose, as fieldfold.sensors.files says it; a test holds the two equal."""
FULL_OUTBOX = 8


def alerts(snapshot: Snapshot) -> list[Alert]:
    """The urgent first."""
    found = [*_of_the_daemon(snapshot), *_of_the_link(snapshot), *_of_the_data(snapshot), *_of_the_model(snapshot)]
    return sorted(found, key=lambda alert: not alert.urgent)


def shown(snapshot: Snapshot, width: int, height: int) -> Words:
    """The alerts as lines."""
    return needs.lines(alerts(snapshot), width, height, calm=snapshot.status is not None)


def _of_the_daemon(snapshot: Snapshot) -> Iterator[Alert]:
    if snapshot.lost:
        reason, _, hint = foreign(snapshot.lost).partition("; ")
        since = f", for {duration(snapshot.now - snapshot.lost_at)} now" if snapshot.status else ""
        yield Alert(f"{reason}{since}: {hint}. It is asked again every second.", "?", urgent=True)
    status = snapshot.status
    if status is not None and not snapshot.lost:
        if status.state == "needs attention" or (status.detail and "set aside" in status.detail):
            yield Alert(foreign(status.detail), "l", urgent=status.state == "needs attention")
        if status.state == "paused":
            yield Alert("training is paused: p goes on", "p")


def _of_the_link(snapshot: Snapshot) -> Iterator[Alert]:
    status = snapshot.status
    if status is None or snapshot.lost:
        return
    if not status.connected and status.link not in status.detail:
        yield Alert(
            f"{foreign(status.broker)} is not reached: {foreign(status.link.removeprefix('down: '))}."
            " Nothing is lost, updates wait here.",
            "n",
            urgent=True,
        )
    if status.outbox >= FULL_OUTBOX:
        yield Alert(f"{status.outbox} updates wait for receipts: does the aggregator run?", "n", urgent=True)
    decided = status.accepted + status.rejected
    if status.rejected and status.rejected >= MOST_REJECTED * decided:
        yield Alert(
            f"{status.rejected} of {decided} updates were rejected. {foreign(status.last_receipt)}", "t", urgent=True
        )


def _of_the_data(snapshot: Snapshot) -> Iterator[Alert]:
    report = snapshot.status.data if snapshot.status else None
    if report is None:
        return
    reasons = {reason: count for reason, count in report["dropped_rows"].items() if reason != OTHER_SERIES}
    dropped = sum(reasons.values())
    if dropped > DROPPED_SHARE * (dropped + report["rows"]):
        reason, most = max(reasons.items(), key=lambda item: item[1])
        share = 100 * dropped / (dropped + report["rows"])
        yield Alert(f"{share:.0f} % of the rows are dropped, {most} for: {foreign(reason)}", "d")
    if report["parts"]["validation"]["windows"] < FEW_VALIDATION_WINDOWS:
        windows = report["parts"]["validation"]["windows"]
        yield Alert(f"only {windows} windows to validate on: scores here say little. Give it more data.", "d")
    far = [each.name for each in snapshot.drift if abs(each.mean - each.fleet_mean) > DRIFT_STDS * each.fleet_std]
    if far:
        yield Alert(
            f"{', '.join(map(foreign, far[:3]))}: far from the fleet's values. Is the column the right one?", "d"
        )


def _of_the_model(snapshot: Snapshot) -> Iterator[Alert]:
    status = snapshot.status
    if status is None or status.version is None or status.newest_version is None:
        return
    if (behind := status.newest_version - status.version) >= FAR_BEHIND:
        yield Alert(f"{behind} versions behind, and catching up", "n")
    served = served_words(status.served_version, personal=status.served_personal)
    if status.pinned:
        yield Alert(f"{served} is pinned: no newer version is served, until i on Model unpins it", "m")
    elif status.served_version is not None and status.served_version <= status.version - FAR_BEHIND:
        yield Alert(
            f"{served} is still served: on the data here it scores better than every version since",
            "m",
        )
