"""Rows of the ledger as frozen values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fieldfold.wire.messages import ClassScores


class TaskRecord(msgspec.Struct, frozen=True):
    """A published bundle."""

    digest: str
    name: str
    bundle: bytes


class Decision(msgspec.Struct, frozen=True):
    """A whole update and what was decided on it; `body` is None when it was rejected.

    Attributes:
        score: of its base version on the node's own validation data, as the node says; None where it says none.
        class_scores: the same for each class, with the number of examples; empty likewise.
    """

    task: str
    node: str
    sequence: int
    digest: str
    base_version: int
    num_examples: int
    accepted: bool
    size_bytes: int
    code: str = ""
    reason: str = ""
    hint: str = ""
    staleness: int = 0
    norm: float = 0.0
    num_params: int = 0
    score: float | None = None
    class_scores: ClassScores = ()
    body: bytes | None = None
    id: int = 0


class VersionRecord(msgspec.Struct, frozen=True):
    """A released version."""

    task: str
    version: int
    contribution: int
    parameters: str
    delta: bytes
    weights: Mapping[str, float]


class Checkpoint(msgspec.Struct, frozen=True):
    """A point from which the fold can be replayed; vectors as little-endian float32 bytes."""

    task: str
    version: int
    contribution: int
    exact: bytes | memoryview
    released: bytes | memoryview
    state: bytes


class Stretch(msgspec.Struct, frozen=True):
    """A part of the log that is folded with the same settings: what follows `contribution`, up to the next stretch.

    Attributes:
        version: the newest at its beginning.
        settings: as JSON.
        fresh: the method's state began anew; else it went on with the former one.
    """

    task: str
    contribution: int
    version: int
    settings: str
    fresh: bool


class Place(msgspec.Struct, frozen=True):
    """A place in a task's log: after a contribution, at a version; the first one is before the first contribution."""

    version: int = 0
    contribution: int = 0


class TurnBack(msgspec.Struct, frozen=True):
    """After a contribution, `version` was released with the parameters of an older one."""

    task: str
    version: int
    contribution: int
    to_version: int


class Operation(msgspec.Struct, frozen=True):
    """What somebody asked for and was done.

    Attributes:
        at: seconds since 1970.
        who: the user at the control socket, as the kernel knows him.
        subject: a node, a version, a task; empty where there is none.
        result: what came of it, in words.
    """

    id: int
    at: float
    who: str
    command: str
    subject: str
    result: str


class SealedOperation(msgspec.Struct, frozen=True):
    """An operation with its place in the chain, all in hex.

    Attributes:
        key: fingerprint of the key that has signed; empty where none has.
        digest: of this row and the one before.
        signature: over the digest.
    """

    operation: Operation
    key: str
    digest: str
    signature: str


class AuditView(msgspec.Struct, frozen=True):
    """Rows of the chain, the ledger's name, the signature under the chain's end, and where the public keys lie."""

    ledger: str
    end: str
    folder: str
    rows: list[SealedOperation]


class Origin(msgspec.Struct, frozen=True):
    """Where a run branched off: its parent's up to `version`, and then what that would be `without` some nodes."""

    run: str
    task: str
    parent: str
    version: int
    without: tuple[str, ...]
