"""aggregator.toml, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from aggregator.fold.methods import AnyMethod
from aggregator.fold.trust import Trust, method_for
from aggregator.ledger.retention import RetentionConfig
from aggregator.verify.update import VerifyConfig
from fieldfold import settings
from fieldfold.codec import find_profile
from fieldfold.errors import CodecError
from fieldfold.link.session import LinkConfig
from fieldfold.sensors.source import DataConfig

LEDGER_FILE = "ledger.sqlite"
"""The ledger's name in state_dir."""


class NormalisationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the fleet's statistics are complete enough to be released with the first model.

    Attributes:
        nodes: released as soon as this many nodes have sent theirs; 0 where the number is not known.
        patience_s: this long after the first, released with those that came.
    """

    nodes: Annotated[int, msgspec.Meta(ge=0)] = 0
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0


class ReleaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How versions are published.

    Attributes:
        profile: codec profile of the delta from one version to the next; none that rounds at random, since a later
            release brings what this one leaves out.
        snapshot_every: versions between two snapshots of the whole model, at most; it comes sooner when the deltas
            since the last one weigh half of it.
    """

    profile: str = "compensated"
    snapshot_every: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100

    def __post_init__(self) -> None:
        try:
            profile = find_profile(self.profile)
        except CodecError as error:
            raise ValueError(str(error)) from None
        if profile.is_unbiased:
            raise ValueError(f"the profile {profile.name} is for updates; a release brings later what it leaves out")


class AggregatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        federation: first part of every topic after `fieldfold/`.
        state_dir: where the ledger lies, relative to the file.
        control_socket: Unix socket for status and commands; empty for the default place.
        task: a bundle to publish at the first start; `fieldfold task publish` does it later.
        max_update_bytes: largest update that is taken.
        trust: chooses the method; left out, `fleet`.
        fold: the method itself, in place of `trust`.
        evaluation: held-out data beside the aggregator, with the same keys as a node's `[data]` table.
    """

    federation: str
    broker: LinkConfig
    state_dir: str = "/var/lib/fieldfold/aggregator"
    control_socket: str = ""
    task: str = ""
    max_update_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 64 << 20
    trust: Trust | None = None
    fold: AnyMethod | None = None
    verify: VerifyConfig = VerifyConfig()
    release: ReleaseConfig = ReleaseConfig()
    normalisation: NormalisationConfig = NormalisationConfig()
    retention: RetentionConfig = RetentionConfig()
    evaluation: DataConfig | None = None

    def __post_init__(self) -> None:
        if self.trust and self.fold:
            raise ValueError("says both trust and [fold]; leave out one of them")

    @property
    def method(self) -> AnyMethod:
        """How updates become a model."""
        most = -(-2 * self.normalisation.nodes // 3)
        return self.fold or method_for(self.trust or "fleet", start=max(1, most))


def load(path: Path) -> AggregatorConfig:
    """Reads and checks aggregator.toml.

    Raises:
        ConfigError: naming file, key and allowed values.
    """
    return settings.load(path, AggregatorConfig)
