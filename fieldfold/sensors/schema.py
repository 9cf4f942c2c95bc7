"""What a task asks of the data, the same on every gateway; where a gateway finds it is in `source.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MAX_FEATURES = 512
MAX_WINDOW = 100_000

FeatureName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=0.5)]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input channel: the name a gateway maps a column to, and its unit for people."""

    name: FeatureName
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""


class ColumnTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="column", tag_field="kind"):
    """The target stands in a column; the window takes the value of its last row.

    Attributes:
        name: the name a gateway maps a column to.
        classes: for classification, the values in the order of their class index; empty for regression.
        scale: a regression target is divided by this before training.
    """

    name: FeatureName
    classes: Annotated[tuple[str, ...], msgspec.Meta(max_length=10_000)] = ()
    scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class RemainingLifeTarget(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remaining_life", tag_field="kind"
):
    """Rows until the end of the series, for series that end in a failure.

    Attributes:
        cap: larger values are set to this (a healthy machine shows no sign of its age).
        scale: the target is divided by this before training.
    """

    cap: Annotated[float, msgspec.Meta(gt=0)] = 125.0
    scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class DataSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Features, windows, target and split of a task.

    A window is `window` consecutive rows of one series; the next one starts `stride` rows later. Arrays are
    float32: inputs `(num_windows, window, num_features)`, targets `(num_windows, 1)` for regression and int64
    `(num_windows,)` class indices for classification.
    """

    features: Annotated[tuple[Feature, ...], msgspec.Meta(min_length=1, max_length=MAX_FEATURES)]
    window: Count
    target: ColumnTarget | RemainingLifeTarget
    stride: Count = 1
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.0
    normalisation: Literal["fleet", "none"] = "fleet"
