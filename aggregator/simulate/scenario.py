"""What a scenario file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from aggregator.config import ReleaseConfig
from aggregator.fold.methods import AnyMethod
from fieldfold import settings
from fieldfold.codec import find_profile
from fieldfold.errors import CodecError
from fieldfold.sensors.source import DataConfig

Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
AttackKind: TypeAlias = Literal[
    "none", "sign-flip", "noise", "label-flip", "alie", "min-max", "mimic-slow", "mimic-fast"
]


class PartitionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds what.

    Attributes:
        by: `series` deals whole series (engines, machines, sites) out; where there are more nodes than series, nodes
            share one in blocks. `classes` deals the windows of each class out by a Dirichlet distribution. `even`
            deals windows out at random.
        alpha: of the Dirichlet distribution; the smaller, the more unlike the nodes.
        slow_only: so many classes, the last ones, are held by slow nodes alone, and by nobody else, where some are
            slow and some are not.
    """

    by: Literal["series", "classes", "even"] = "series"
    alpha: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.3
    slow_only: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0


class SpeedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a local run takes.

    Attributes:
        update_s: median over the nodes.
        spread: standard deviation of the logarithm from node to node.
        jitter: the same from one run of a node to its next.
        slow_share: the slowest nodes, of which each takes `slow_factor` times as long again.
        longest_s: who takes longer sends what was trained until then, in proportion; 0 for no limit.
    """

    update_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.5
    jitter: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.2
    slow_share: Share = 0.2
    slow_factor: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    longest_s: Seconds = 0.0


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Median rates in kbit/s, 0 for no limit; `spread` as for speeds; the delay counts once in each direction."""

    up_kbit_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    down_kbit_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.5
    delay_s: Seconds = 0.1


class AvailabilityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When nodes are there.

    Attributes:
        day_s: length of a day, 0 for none. Each node is on for `on_share` of it, at hours of its own.
        drop_out: chance that a run is lost, by a power cut or a crash; the node is back after `away_s`.
    """

    day_s: Seconds = 0.0
    on_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    drop_out: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    away_s: Seconds = 60.0


class AttackConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that lie.

    Attributes:
        kind: see `attacks.py`.
        share: of all nodes.
        who: drawn at random, or the fastest.
        speed_up: how many times faster they send than they would.
        voters: share of all nodes, drawn at random, that train honestly and lie about their loss.
        vote: what attackers and lying voters say of their loss: nothing lower could be, or nothing higher.
    """

    kind: AttackKind = "none"
    share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    who: Literal["random", "fastest"] = "random"
    speed_up: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1.0
    voters: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    vote: Literal["low", "high"] = "low"


class MethodConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the comparison."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,40}$")]
    fold: AnyMethod


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; paths are relative to it.

    Attributes:
        task: the bundle.
        nodes: size of the fleet.
        data: what all nodes hold together; the keys are those of a node's `[data]`.
        evaluation: held-out data that every method is scored on, with the same keys.
        until_s: virtual seconds; 0 for no end.
        updates: arrivals at the aggregator after which a run ends; 0 for no end.
        score_every_s: virtual seconds between two scores.
        target: the score whose time is told; None for none.
        wait_for_version_s: how long a node waits for a newer version before it trains from the same one again.
        steps: local steps of a run; 0 takes the task's.
        local_learning_rate: 0 takes the task's.
        seeds: each method runs once for each of them; a seed draws the fleet, the split and the batches.
        profile: codec profile of the updates.
        max_norm: as in `[verify]`.
    """

    task: str
    nodes: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    data: DataConfig
    evaluation: DataConfig
    methods: Annotated[tuple[MethodConfig, ...], msgspec.Meta(min_length=1)]
    until_s: Seconds = 0.0
    updates: Annotated[int, msgspec.Meta(ge=0)] = 0
    score_every_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    target: float | None = None
    wait_for_version_s: Seconds = 30.0
    steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    local_learning_rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    seeds: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = (0,)
    profile: str = "balanced"
    max_norm: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    release: ReleaseConfig = ReleaseConfig()
    partition: PartitionConfig = PartitionConfig()
    speed: SpeedConfig = SpeedConfig()
    link: LinkConfig = LinkConfig()
    availability: AvailabilityConfig = AvailabilityConfig()
    attack: AttackConfig = AttackConfig()

    def __post_init__(self) -> None:
        try:
            find_profile(self.profile)
        except CodecError as error:
            raise ValueError(str(error)) from None
        if not self.until_s and not self.updates:
            raise ValueError("says neither until_s nor updates, so it would never end")
        if len({method.name for method in self.methods}) < len(self.methods):
            raise ValueError("two methods have one name")


def load(path: Path) -> Scenario:
    """Reads and checks a scenario.

    Raises:
        ConfigError: naming file, key and allowed values.
    """
    return settings.load(path, Scenario)
