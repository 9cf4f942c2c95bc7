"""What a view of the aggregator shows: frozen, for people and for programs that ask."""

from __future__ import annotations

from typing import Literal

import msgspec

from fieldfold.wire.messages import ClassScores, NodePresence


class Released(msgspec.Struct, frozen=True):
    """A version.

    Attributes:
        at: seconds since 1970.
        score: on the held-out data; None where it was not evaluated.
        nodes: whose updates were in its step.
        size_bytes: of the delta that went out; 0 once it is dropped.
        to_version: of which older version these are the parameters, where the model was turned back; else None.
    """

    version: int
    at: float
    score: float | None
    nodes: int
    size_bytes: int
    to_version: int | None = None


class Taken(msgspec.Struct, frozen=True):
    """A whole update and what was decided on it; `place` is that in the log, `at` seconds since 1970.

    Attributes:
        score, class_scores: of its base version on the node's own validation data, as in the ledger.
    """

    place: int
    at: float
    node: str
    sequence: int
    base_version: int
    staleness: int
    norm: float
    num_examples: int
    size_bytes: int
    accepted: bool
    code: str
    reason: str
    score: float | None = None
    class_scores: ClassScores = ()


class BackupView(msgspec.Struct, frozen=True):
    """How far a backup is; `trouble` says why it failed."""

    path: str
    state: Literal["running", "done", "failed"]
    done_bytes: int = 0
    size_bytes: int = 0
    trouble: str = ""


class ProofView(msgspec.Struct, frozen=True):
    """How far a verification is.

    Attributes:
        done, total: contributions folded again, and all of the present task; 0 of 0 while the copy is made.
        said: when it is done, what it came to; `different` names the first difference; `failed` why there is no word.
    """

    state: Literal["running", "done", "different", "failed"]
    done: int = 0
    total: int = 0
    said: str = ""


class ClassScore(msgspec.Struct, frozen=True):
    """How good the model is on one class of the task, as the nodes tell; see `fairness.py`.

    Attributes:
        score: None where no node holds an example.
        num_examples, num_nodes: on which, of which.
    """

    name: str
    score: float | None
    num_examples: int
    num_nodes: int


class NodeView(msgspec.Struct, frozen=True):
    """What the aggregator knows of one node.

    Attributes:
        presence: what the node says of itself.
        pace_s: usual time between two of its accepted updates; None before the second since the program's start.
        staleness: of its newest accepted update, in versions; None before the first since the program's start.
        norm: usual length of its accepted updates; None likewise.
        score: of the version that its newest accepted update was against, on its own validation data; None likewise,
            and where it has none.
        excluded_by: who has excluded it; empty where nobody has.
    """

    node: str
    presence: NodePresence | None
    accepted: int
    rejected: int
    bytes_on_wire: int
    last_update_age_s: float | None
    last_reason: str
    pace_s: float | None
    excluded_by: str
    staleness: int | None = None
    norm: float | None = None
    score: float | None = None


class AggregatorStatus(msgspec.Struct, frozen=True):
    """All numbers are since the ledger began, unless they say otherwise.

    Attributes:
        state: `waiting for a task`, `waiting for statistics`, `folding`, `paused`, `storage full`.
        term: in which it keeps the federation; 0 while it does not know that nobody else does.
        score: newest held-out score with its version.
        better: `lower` or `higher`: which score is; empty before there is a task.
        score_median, score_worst_decile: over the nodes' own scores, of those that told one; the second is the
            mean of the worst tenth of them, at least one.
        classes: how the classes of the task fare, in its order; empty where there are none, or nobody has told.
        worst_class: the one that fares worst; None where fewer than two are known.
        evaluation_trouble: why there are no scores, where some are wanted.
        staleness_median, staleness_max: over the newest accepted updates.
        reasons: rejected and deferred updates since the start of the program, by the receipt's code.
        bytes_received: update messages as they came over the wire (before a restart: without repeats).
        bytes_published: model and task as they were handed to the broker.
        float32_bytes: what the accepted updates would have been uncompressed.
        backup, proof: the newest copy and the newest verification of the ledger since the start of the program.
    """

    state: str
    detail: str
    federation: str
    connected: bool
    link: str
    term: int
    task: str
    task_digest: str
    version: int | None
    score: float | None
    score_version: int | None
    score_median: float | None
    score_worst_decile: float | None
    classes: tuple[ClassScore, ...]
    worst_class: str | None
    evaluation_trouble: str
    metric: str
    better: str
    statistics_from: int
    nodes_online: int
    nodes_known: int
    accepted: int
    rejected: int
    malformed: int
    reasons: dict[str, int]
    staleness_median: float
    staleness_max: int
    bytes_received: int
    bytes_published: int
    float32_bytes: int
    backup: BackupView | None
    proof: ProofView | None
    nodes: tuple[NodeView, ...]
    uptime_s: float
