"""The panes of the overview. Pure."""

from __future__ import annotations

import time
from typing import Final

from fieldfold.cli.figures import duration, number, size
from fieldfold.terminal.glyphs import curve
from fieldfold.terminal.words import Line, Words, counted, foreign, line, wrapped
from node_app.status import NodeStatus
from node_app.tui.snapshot import Snapshot, served_words

CURVE_COLUMNS = 18
RUNTIMES: Final = {"onnx": "ONNX Runtime", "torch": "PyTorch"}


def model(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001 - a view's signature
    """Versions, and how they score on this gateway's own validation data."""
    status = snapshot.status
    if status is None:
        return ()
    if not status.task:
        return (line("no task yet: somebody publishes one with"), line("  fieldfold task publish X.bundle"))
    scores = curve([each.score for each in snapshot.adoptions], min(CURVE_COLUMNS, width - 18), 1, snapshot.glyphs)[0]
    newest, held = (
        "none" if version is None else f"v{version}"
        for version in (status.newest_version or status.version, status.version)
    )
    served = served_words(status.served_version, personal=status.served_personal)
    lines = [
        line(f"global {newest}   here ", (held, "strong")),
        line(f"{foreign(status.metric)} on own validation data"),
        line("  global   ", (number(status.global_score).ljust(7), "strong"), f" {scores}"),
        line("  served   ", (number(status.served_score).ljust(7), "strong"), f" {served}"),
    ]
    if status.personal_score is not None:
        lines.append(line("  personal ", (number(status.personal_score), "strong")))
    if snapshot.adoptions:
        last = snapshot.adoptions[-1]
        word = "adopted" if last.is_served else "refused"
        lines.append(line(f"v{last.version} {word} here {_ago(snapshot.now - last.at)}"))
    return (*lines, line((foreign(status.task), "dim")))


def training(snapshot: Snapshot, width: int, height: int) -> Words:
    """The present run, and what it costs the box."""
    status = snapshot.status
    if status is None:
        return ()
    losses = curve([each.loss for each in snapshot.runs], min(CURVE_COLUMNS, width - 15), 1, snapshot.glyphs)[0]
    pace = "" if status.steps_per_s is None else f"   {number(status.steps_per_s)} steps/s"
    lines = [line("loss ", (number(status.loss).ljust(8), "strong"), " ", losses)]
    if status.steps:
        lines.append(line(f"step {status.step} of {status.steps}{pace}"))
    if words := next_update(status):
        lines.append(line(words))
    lines.append(load(snapshot, status))
    return (*lines, *runtime(status, width))[: max(1, height)]


def runtime(status: NodeStatus, width: int) -> Words:
    """What computes, where, and why this one was taken."""
    if not status.runtime:
        return ()
    said = f"{RUNTIMES.get(status.runtime, status.runtime)} on {status.device}: {foreign(status.runtime_reason)}"
    return tuple(map(line, wrapped(said, width, "  ")))


def next_update(status: NodeStatus) -> str:
    """When this gateway sends again, as far as that depends on itself; else empty."""
    if status.state == "learning" and status.steps_per_s and status.steps:
        left_s = max(0, status.steps - status.step) / status.steps_per_s
        return f"next update in {duration(left_s) if left_s >= 60 else f'{left_s:.0f} s'}"
    if status.next_run_s is not None:
        return f"next run within {duration(status.next_run_s)}"
    return ""


def load(snapshot: Snapshot, status: NodeStatus) -> Line:
    """Processor, memory and heat."""
    cpu = "-" if snapshot.cpu_percent is None else f"{snapshot.cpu_percent:.0f} %"
    heat = "" if status.temperature_c is None else f"   {status.temperature_c:.0f} °C"
    return line(f"CPU {cpu}   {status.memory_bytes / 1e6:.0f} MB{heat}")


def updates(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001
    """The newest decision, and all of them counted."""
    status = snapshot.status
    if status is None:
        return ()
    lines = []
    if snapshot.history:
        newest = snapshot.history[0]
        verdict = ("accepted", "good") if newest.accepted else ("rejected", "bad")
        lines.append(line(f"#{newest.sequence} ", verdict, f"   {size(newest.size_bytes)}"))  # type: ignore[arg-type]
        lines.append(
            line(
                f"  {counted(newest.staleness, 'version')} stale"
                if newest.accepted
                else f"  {foreign(newest.reason)}"
            )
        )
    lines.append(line(f"today {status.today.accepted:,} accepted, {status.today.rejected:,} rejected"))
    waiting = f"{status.outbox} waiting in the outbox" if status.outbox else "outbox empty"
    return (*lines, line(waiting))


def link(snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG001
    """The broker, and what went to and fro."""
    status = snapshot.status
    if status is None:
        return ()
    trip = "" if status.round_trip_s is None or not status.connected else f"   {1000 * status.round_trip_s:.0f} ms"
    up = f"up {duration(status.link_up_s)}" if status.link_up_s is not None else foreign(status.link)
    today = status.today
    return (
        line(foreign(host_of(status.broker)), trip),
        line(up, f"   {counted(today.reconnects, 'reconnect')} today" if today.reconnects else ""),
        line(f"today {size(today.bytes_up)} up   {size(today.bytes_down)} down"),
        line(f"float32 would be {size(today.float32)}" if today.float32 else "no model sent or received today"),
        line((f"counted since {clock(status.today_since)}", "dim")),
    )


def clock(at: float) -> str:
    """The time of day here."""
    return time.strftime("%H:%M", time.localtime(at))


def host_of(url: str) -> str:
    """The broker without the scheme, and whether the way there is encrypted."""
    scheme, _, rest = url.partition("://")
    return f"{rest or scheme}  {'TLS' if scheme == 'mqtts' else 'plain'}"


def curves(snapshot: Snapshot, width: int, height: int) -> Words:
    """Loss and score at the size of the pane."""
    status = snapshot.status
    if status is None or not (snapshot.runs or snapshot.adoptions):
        return (line(("curves come with the first updates", "dim")),) if status else ()
    rows = max(1, (height - 2) // 2)
    found: list[Line] = []
    for name, values in (
        ("loss", [each.loss for each in snapshot.runs]),
        (foreign(status.metric), [each.score for each in snapshot.adoptions]),
    ):
        known = [value for value in values if value is not None]
        span = f"  {number(min(known))} to {number(max(known))}, {len(known)} points" if known else ""
        found.append(line((name, "strong"), (span, "dim")))
        found.extend(line(row) for row in curve(values, width, rows, snapshot.glyphs))
    return tuple(found)


def _ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"
