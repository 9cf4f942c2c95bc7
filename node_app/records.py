"""What has happened on a node, one struct an event, as its views show it. Times are seconds since 1970."""

from __future__ import annotations

import msgspec


class Run(msgspec.Struct, frozen=True):
    """A local run that was handed in as update `sequence`.

    Attributes:
        error: length of what the codec left out of the update, as a share of what it was to carry.
    """

    at: float
    base_version: int
    loss: float
    num_steps: int
    seconds: float
    size_bytes: int
    sequence: int
    error: float


class Adoption(msgspec.Struct, frozen=True):
    """A released model that was evaluated here, and which one is served since: a released or a personal one."""

    at: float
    version: int
    score: float | None
    served_version: int | None
    served_personal: bool = False

    @property
    def is_served(self) -> bool:
        """Whether it was taken."""
        return self.served_version == self.version and not self.served_personal


class Waiting(msgspec.Struct, frozen=True):
    """What a screen shows of an update in the outbox."""

    sequence: int
    digest: str
    base_version: int
    has_left: bool
    size_bytes: int
    created_at: float


class Decided(msgspec.Struct, frozen=True):
    """What became of an update; `reason` is the aggregator's where it was rejected."""

    sequence: int
    accepted: bool
    reason: str
    staleness: int
    size_bytes: int
    decided_at: float


class Carried(msgspec.Struct, frozen=True):
    """An update in the outbox, and how much of it the broker has in the present attempt.

    Attributes:
        chunks: the broker has; 0 of an update that is between two attempts.
        of_chunks: the update is cut into; 0 where it was never cut.
    """

    update: Waiting
    chunks: int
    of_chunks: int


class Drift(msgspec.Struct, frozen=True):
    """A feature's mean and standard deviation here and in the statistics that the fleet trains with."""

    name: str
    mean: float
    std: float
    fleet_mean: float
    fleet_std: float


class Sample(msgspec.Struct, frozen=True):
    """A feature's values in one training window, oldest first, as the model sees them; NaN is None."""

    name: str
    values: tuple[float | None, ...]
