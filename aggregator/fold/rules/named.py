"""The rules a configuration may name."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from aggregator.fold.rules.centered_clipping import CenteredClipping
from aggregator.fold.rules.coordinate_wise import CoordinateMedian, TrimmedMean
from aggregator.fold.rules.geometric_median import GeometricMedian
from aggregator.fold.rules.krum import Krum
from aggregator.fold.rules.mixed_median import MixedMedian


class Mean(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mean", tag_field="name"):
    """The plain mean, which trusts everybody; it is taken without laying the deltas side by side."""


RobustRule: TypeAlias = CoordinateMedian | TrimmedMean | CenteredClipping | Krum | GeometricMedian | MixedMedian
AnyRule: TypeAlias = Mean | RobustRule
