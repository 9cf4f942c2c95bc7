"""One frozen picture of the node: all that a screen or a probe may show."""

from __future__ import annotations

from typing import Any

import msgspec

from fieldfold.wire.messages import NodePresence


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Scores are the task's deciding metric on this gateway's own validation data.

    Attributes:
        state: in words: `learning`, `waiting for ...`, `paused`, `needs attention`.
        detail: what to do, where something needs doing.
        newest_version: newest version heard of; `version` is the one held.
        runtime: `onnx` or `torch`, empty before it is needed; `device` is where it computes.
        runtime_reason: why this one was taken.
        outbox: updates that wait for their receipt.
        bytes_up, bytes_down: MQTT payloads of this run of the daemon.
        float32_up, float32_down: what the updates, and the released versions, would have been uncompressed.
        data: the data report; see fieldfold.sensors.dataset.DataReport.
    """

    node: str
    federation: str
    state: str
    detail: str
    connected: bool
    link: str
    task: str
    task_digest: str
    runtime: str
    device: str
    runtime_reason: str
    version: int | None
    newest_version: int | None
    served_version: int | None
    metric: str
    global_score: float | None
    served_score: float | None
    loss: float | None
    step: int
    steps: int
    steps_per_s: float | None
    accepted: int
    rejected: int
    last_receipt: str
    outbox: int
    last_update_bytes: int
    bytes_up: int
    bytes_down: int
    float32_up: int
    float32_down: int
    reconnects: int
    memory_bytes: int
    uptime_s: float
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
