"""What a view of the aggregator shows of its past: frozen, small, for people."""

from __future__ import annotations

import msgspec


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
    """A whole update and what was decided on it; `place` is that in the log, `at` seconds since 1970."""

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
