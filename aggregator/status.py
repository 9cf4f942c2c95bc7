"""Running counts of the federation, and the one frozen picture that is made of them and all else."""

from __future__ import annotations

import collections
import math
import statistics
import time
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np

import fieldfold
from aggregator.fairness import Report, by_class, heard, worst
from aggregator.federation import Federation
from aggregator.ledger.records import Decision
from aggregator.records import AggregatorStatus, BackupView, ClassScore, NodeView, ProofView
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import AggregatorPresence, NodePresence

BYTES_PER_PARAMETER = 4
RECENT_STALENESS = 10_000
GAIN = 0.2
"""Of the newest value in what is usual."""


class Spread(NamedTuple):
    """How good the model is where it is used: the median over nodes, and the mean of the worst tenth of them."""

    median: float
    worst_decile: float


class NodeTally:
    """Running counts of one node."""

    def __init__(self, accepted: int = 0, rejected: int = 0, bytes_on_wire: int = 0, parameters: int = 0) -> None:
        self.accepted = accepted
        self.rejected = rejected
        self.bytes_on_wire = bytes_on_wire
        self.parameters = parameters
        self.last_update: float | None = None
        self.last_accepted: float | None = None
        self.pace_s: float | None = None
        self.staleness: int | None = None
        self.norm: float | None = None
        self.score: float | None = None
        self.report: Report | None = None
        self.last_reason = ""
        self.presence: NodePresence | None = None

    def moved(self, now: float, staleness: int, norm: float, score: float | None) -> None:
        """An update of it was accepted."""
        if self.last_accepted is not None:
            self.pace_s = _usual(self.pace_s, now - self.last_accepted)
        self.last_accepted = now
        self.staleness, self.norm, self.score = staleness, _usual(self.norm, norm), score

    def view(self, node: str, excluded_by: str) -> NodeView:
        """A frozen copy."""
        age_s = None if self.last_update is None else time.monotonic() - self.last_update
        return NodeView(
            node,
            self.presence,
            self.accepted,
            self.rejected,
            self.bytes_on_wire,
            age_s,
            self.last_reason,
            self.pace_s,
            excluded_by,
            self.staleness,
            self.norm,
            self.score,
        )


def _usual(before: float | None, now: float) -> float:
    """A mean that follows what is new."""
    return now if before is None else before + GAIN * (now - before)


class Tally:
    """Running counts of the whole federation; the service's thread writes, status is copied out of it."""

    def __init__(self, counts: Mapping[str, tuple[int, int, int, int]]) -> None:
        self.nodes = {node: NodeTally(*numbers) for node, numbers in counts.items()}
        self.malformed = 0
        self.reasons: collections.Counter[str] = collections.Counter()
        self.staleness: collections.deque[int] = collections.deque(maxlen=RECENT_STALENESS)

    def node(self, name: str) -> NodeTally:
        """The counts of a node, from zero for a new one."""
        return self.nodes.setdefault(name, NodeTally())

    def heard(self, node: str, size_bytes: int) -> None:
        """Counts an update message."""
        self.node(node).bytes_on_wire += size_bytes

    def refused(self, node: str, reason: str) -> None:
        """Counts a message that cannot even be answered; `node` is empty when not even its sender is known."""
        self.malformed += 1
        if node:
            self.node(node).last_reason = reason

    def deferred(self, node: str, reason: str) -> None:
        """Counts an update that was more than its node may send."""
        self.reasons["too_many"] += 1
        self.node(node).last_reason = reason

    def decided(self, decision: Decision) -> None:
        """Counts a decision."""
        mine = self.node(decision.node)
        mine.last_update = time.monotonic()
        if decision.accepted:
            mine.accepted += 1
            mine.moved(mine.last_update, decision.staleness, decision.norm, decision.score)
            mine.parameters += decision.num_params
            told = np.array(decision.class_scores, np.float64)
            mine.report = Report(decision.task, mine.last_update, mine.pace_s, told) if told.size else None
            mine.last_reason = ""
            self.staleness.append(decision.staleness)
        else:
            mine.rejected += 1
            mine.last_reason = decision.reason
            self.reasons[decision.code] += 1

    @property
    def bytes_on_wire(self) -> int:
        """Update messages of all nodes, repeated ones included."""
        return sum(node.bytes_on_wire for node in list(self.nodes.values()))

    @property
    def float32_bytes(self) -> int:
        """What the accepted updates would have been uncompressed."""
        return BYTES_PER_PARAMETER * sum(node.parameters for node in list(self.nodes.values()))

    @property
    def accepted(self) -> int:
        """Accepted updates of all nodes."""
        return sum(node.accepted for node in list(self.nodes.values()))

    @property
    def rejected(self) -> int:
        """Rejected updates of all nodes."""
        return sum(node.rejected for node in list(self.nodes.values()))

    @property
    def online(self) -> int:
        """Nodes whose last word was not that they are gone."""
        return sum(
            node.presence is not None and node.presence.state != "offline" for node in list(self.nodes.values())
        )

    def scores(self, better: Literal["lower", "higher"]) -> Spread | None:
        """Over the nodes' own scores; None while nobody has told one."""
        worst_first = sorted(
            (node.score for node in list(self.nodes.values()) if node.score is not None), reverse=better == "lower"
        )
        if not worst_first:
            return None
        return Spread(statistics.median(worst_first), statistics.fmean(worst_first[: -(-len(worst_first) // 10)]))

    def classes(self, bundle: Bundle, excluded: Collection[str]) -> tuple[ClassScore, ...]:
        """How good the model is on each class of the task, as the nodes heard lately tell that are not excluded."""
        reports = [node.report for name, node in list(self.nodes.items()) if node.report and name not in excluded]
        return by_class(bundle.manifest.data.scored_classes, heard(reports, bundle.digest, time.monotonic()))

    def staleness_median(self) -> float:
        """Median staleness of the newest accepted updates; 0 before the first."""
        return float(statistics.median(tuple(self.staleness))) if self.staleness else 0.0

    def staleness_max(self) -> int:
        """Largest staleness of the newest accepted updates."""
        return max(tuple(self.staleness), default=0)


def describe(  # noqa: PLR0913 - the picture has as many sources
    name: str,
    *,
    state: str,
    detail: str,
    evaluation_trouble: str,
    link: str,
    connected: bool,
    term: int,
    federation: Federation,
    tally: Tally,
    bytes_published: int,
    backup: BackupView | None,
    proof: ProofView | None,
    excluded: Mapping[str, str],
    uptime_s: float,
) -> AggregatorStatus:
    """Copies the present numbers into a frozen status."""
    bundle, model = federation.bundle, federation.model
    score_version, score = federation.score or (None, None)
    spread = tally.scores(bundle.manifest.metrics[0].better) if bundle else None
    classes = tally.classes(bundle, excluded) if bundle else ()
    return AggregatorStatus(
        state=state,
        detail=detail,
        federation=name,
        connected=connected,
        link=link,
        term=term,
        task=bundle.manifest.name if bundle else "",
        task_digest=bundle.digest if bundle else "",
        version=model.version if model else None,
        score=score if score is not None and math.isfinite(score) else None,
        score_version=score_version,
        score_median=spread.median if spread else None,
        score_worst_decile=spread.worst_decile if spread else None,
        classes=classes,
        worst_class=worst(classes, bundle.manifest.metrics[0].better) if bundle else None,
        evaluation_trouble=evaluation_trouble,
        metric=bundle.manifest.metrics[0].name if bundle else "",
        better=bundle.manifest.metrics[0].better if bundle else "",
        statistics_from=federation.statistics_from,
        nodes_online=tally.online,
        nodes_known=len(tally.nodes),
        accepted=tally.accepted,
        rejected=tally.rejected,
        malformed=tally.malformed,
        reasons=dict(tally.reasons),
        staleness_median=tally.staleness_median(),
        staleness_max=tally.staleness_max(),
        bytes_received=tally.bytes_on_wire,
        bytes_published=bytes_published,
        float32_bytes=tally.float32_bytes,
        backup=backup,
        proof=proof,
        nodes=tuple(tally.nodes[node].view(node, excluded.get(node, "")) for node in sorted(tally.nodes)),
        uptime_s=uptime_s,
    )


def presence(status: AggregatorStatus) -> AggregatorPresence:
    """What of it is said on the aggregator's status topic."""
    return AggregatorPresence(
        state=status.state,
        detail=status.detail,
        version=status.version,
        nodes_online=status.nodes_online,
        nodes_known=status.nodes_known,
        accepted=status.accepted,
        rejected=status.rejected,
        score=status.score,
        metric=status.metric,
        software=f"fieldfold {fieldfold.__version__}",
    )


def progress_line(status: AggregatorStatus) -> str:
    """What of it is said in the log, now and then."""
    version = "" if status.version is None else f", version {status.version}"
    score = "" if status.score is None else f", held-out {status.metric} {status.score:.4g}"
    updates = f"{status.accepted} updates accepted, {status.rejected} rejected"
    return f"{status.state}{version}{score}, {updates}, {status.nodes_online} of {status.nodes_known} nodes online"
