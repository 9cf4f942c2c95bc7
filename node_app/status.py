"""One frozen picture of the node: all that a screen or a probe may show."""

from __future__ import annotations

from typing import Any

import msgspec

from fieldfold.wire.messages import NodePresence
from node_app.day import Counts


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Scores are the task's deciding metric on this gateway's own validation data.

    Attributes:
        state: in words: `learning`, `waiting for ...`, `paused`, `needs attention`.
        detail: what to do, where something needs doing.
        newest_version: newest version heard of; `version` is the one held.
        former_version: what was served before; None where nothing was. `pinned`: the served one stays whatever comes.
        personal_score: of the gateway's own model; None where it has none. `served_personal`: such a one is served.
        runtime: `onnx` or `torch`, empty before it is needed; `device` is where it computes.
        runtime_reason: why this one was taken.
        broker: its URL.
        link_up_s: how long this connection has lasted; None while there is none.
        round_trip_s: from a chunk's departure to the broker's acknowledgement; None before the first.
        next_run_s: until it trains on the same version again at the latest; None while it trains, or where that
            depends on something else.
        outbox: updates that wait for their receipt.
        fetching: which object is being read from the broker, and how much of it is here; empty for none.
        today: what has been counted since midnight, or since the daemon's start where that was later: `today_since`,
            seconds since 1970.
        bytes_up, bytes_down: MQTT payloads of this run of the daemon.
        float32_up, float32_down: what the updates, and the released versions, would have been uncompressed.
        cpu_s: processor seconds of the daemon since its start; divide the growth by that of `uptime_s`.
        temperature_c: of the hottest sensor; None where the box shows none.
        log_end, runs_end, adoptions_end: number of the newest item of these views.
        data: the data report; see fieldfold.sensors.dataset.DataReport.
    """

    node: str
    federation: str
    state: str
    detail: str
    connected: bool
    link: str
    broker: str
    link_up_s: float | None
    round_trip_s: float | None
    task: str
    task_digest: str
    runtime: str
    device: str
    runtime_reason: str
    version: int | None
    newest_version: int | None
    served_version: int | None
    former_version: int | None
    pinned: bool
    metric: str
    global_score: float | None
    served_score: float | None
    served_personal: bool
    personal_score: float | None
    loss: float | None
    step: int
    steps: int
    steps_per_s: float | None
    next_run_s: float | None
    accepted: int
    rejected: int
    last_receipt: str
    outbox: int
    fetching: str
    today: Counts
    today_since: float
    last_update_bytes: int
    bytes_up: int
    bytes_down: int
    float32_up: int
    float32_down: int
    reconnects: int
    memory_bytes: int
    cpu_s: float
    temperature_c: float | None
    uptime_s: float
    log_end: int
    runs_end: int
    adoptions_end: int
    data: Any = None


def presence(status: NodeStatus, software: str, state: str = "") -> NodePresence:
    """What of it is said on the broker; `state` where it is another than the status has."""
    return NodePresence(
        node=status.node,
        state=state or status.state,
        detail=status.detail[:500],
        version=status.version,
        software=software,
        loss=status.loss,
        score=status.global_score,
        metric=status.metric,
        accepted=status.accepted,
        rejected=status.rejected,
        outbox=status.outbox,
        bytes_up=status.bytes_up,
        bytes_down=status.bytes_down,
        steps_per_s=status.steps_per_s,
    )
