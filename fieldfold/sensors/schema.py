"""What a task asks of the data, the same on every gateway; where a gateway finds it is in `source.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias

import msgspec

from fieldfold.sensors.cells import canonical_label

MAX_FEATURES = 512
MAX_WINDOW = 100_000
MAX_TARGETS = 16
MAX_SCORED_CLASSES = 256
"""With more classes than this a model is not scored class by class: the scores travel with every update."""

FeatureName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{1,64}\Z")]
InputName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
Unit = Annotated[str, msgspec.Meta(max_length=32)]
Labels = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=10_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=0.5)]

Kind: TypeAlias = Literal["regression", "classification", "multi-label", "autoencoder", "several targets"]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input channel: a number, or one of several categories.

    Attributes:
        name: what a gateway maps a column to.
        unit: of a number, for people.
        categories: the values in the order of their index; empty for a number.
        others: gives every value that is no category the index after the last one; else it is an error.
        input: the model's argument that the channel belongs to. Channels of one input are all numbers or all
            categories; inputs follow each other as they first appear.
    """

    name: FeatureName
    unit: Unit = ""
    categories: Labels = ()
    others: bool = False
    input: InputName | None = None

    @property
    def num_categories(self) -> int:
        """How many indices there are: what an embedding needs; 0 for a number."""
        return len(self.categories) + self.others

    @property
    def input_name(self) -> str:
        """The input that it belongs to; unless it says so, `x` for numbers and `c` for categories."""
        return self.input or ("c" if self.categories else "x")

    def __post_init__(self) -> None:
        _unlike(f"the categories of {self.name}", map(canonical_label, self.categories))
        if self.others and not self.categories:
            raise ValueError(f"feature {self.name} has others but no categories")


class ColumnTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="column", tag_field="kind"):
    """The target stands in a column: a number, or a class.

    Attributes:
        name: the name a gateway maps a column to.
        classes: for classification, the values in the order of their class index; empty for regression.
        scale: a number y is trained as (y - offset) / scale.
        unit: of the number, for people.
        per_step: one target for each row of the window; else the window takes the value of its last row.
    """

    name: FeatureName
    classes: Labels = ()
    scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    offset: float = 0.0
    unit: Unit = ""
    per_step: bool = False

    def __post_init__(self) -> None:
        _unlike(f"the classes of {self.name}", map(canonical_label, self.classes))


class LabelsTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="labels", tag_field="kind"):
    """Several columns that each say whether something holds: 1 or 0, true or false, yes or no.

    Attributes:
        names: one a column.
        per_step: as in ColumnTarget.
    """

    names: Annotated[tuple[FeatureName, ...], msgspec.Meta(min_length=1, max_length=MAX_FEATURES)]
    per_step: bool = False

    def __post_init__(self) -> None:
        _unlike("the labels", self.names)


class RemainingLifeTarget(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="remaining_life", tag_field="kind"
):
    """Rows until the end of the series, for series that end in a failure.

    Attributes:
        cap: larger values are set to this (a healthy machine shows no sign of its age).
        scale: the target is divided by this before training.
        unit: what a row is, for people.
        per_step: as in ColumnTarget.
    """

    cap: Annotated[float, msgspec.Meta(gt=0)] = 125.0
    scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    unit: Unit = ""
    per_step: bool = False


class InputTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="input", tag_field="kind"):
    """The target is an input of numbers itself, normalised as the model gets it: an autoencoder."""

    input: InputName = "x"


Target: TypeAlias = ColumnTarget | LabelsTarget | RemainingLifeTarget | InputTarget


class DataSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Features, windows, targets and split of a task; `arrays.py` has the shapes that follow from it.

    Raises:
        ValueError: when its parts contradict each other.

    Attributes:
        window: consecutive rows of one series that make an example; with 1 every row is one, and its arrays have
            no dimension for the window.
        target: one, or several, in the order in which the loss takes them.
        stride: the next window starts so many rows later.
        normalisation: `fleet` gives each number the mean 0 and standard deviation 1 over the whole fleet.
    """

    features: Annotated[tuple[Feature, ...], msgspec.Meta(min_length=1, max_length=MAX_FEATURES)]
    window: Count
    target: Target | Annotated[tuple[Target, ...], msgspec.Meta(min_length=1, max_length=MAX_TARGETS)]
    stride: Count = 1
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.0
    normalisation: Literal["fleet", "none"] = "fleet"

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target or targets."""
        return tuple(self.target) if isinstance(self.target, tuple | list) else (self.target,)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Input name -> places of its features, in the order in which the model takes them."""
        found: dict[str, tuple[int, ...]] = {}
        for place, feature in enumerate(self.features):
            found[feature.input_name] = (*found.get(feature.input_name, ()), place)
        return found

    @property
    def numeric(self) -> tuple[int, ...]:
        """Places of the features that are numbers: those that have statistics and are normalised."""
        return tuple(place for place, feature in enumerate(self.features) if not feature.categories)

    @property
    def scored_classes(self) -> Labels:
        """The classes of the first target, where it is one class a window: a model is scored on each of them apart.

        Empty for other targets, and beyond MAX_SCORED_CLASSES.
        """
        first = self.targets[0]
        if not isinstance(first, ColumnTarget) or first.per_step or len(first.classes) > MAX_SCORED_CLASSES:
            return ()
        return first.classes

    @property
    def kind(self) -> Kind:
        """What is learned, in a word."""
        if len(self.targets) > 1:
            return "several targets"
        match self.targets[0]:
            case ColumnTarget(classes=classes) if classes:
                return "classification"
            case LabelsTarget():
                return "multi-label"
            case InputTarget():
                return "autoencoder"
        return "regression"

    def __post_init__(self) -> None:
        if not all(isinstance(feature, Feature) for feature in self.features):
            raise TypeError(f"features must hold Features, as features('a', 'b') makes them: {self.features!r}"[:200])
        _unlike("the features", [feature.name for feature in self.features])
        for name, places in self.inputs.items():
            if re.fullmatch(r"y(_\d+)?", name):
                raise ValueError(f"an input may not be called {name}: that is a target's name")
            if len({bool(self.features[place].categories) for place in places}) > 1:
                raise ValueError(f"input {name} mixes numbers and categories")
        columns: list[str] = []
        for target in self.targets:
            if isinstance(target, ColumnTarget | LabelsTarget):
                columns += target.names if isinstance(target, LabelsTarget) else [target.name]
            if isinstance(target, InputTarget):
                if not set(self.inputs.get(target.input, ())) & set(self.numeric):
                    raise ValueError(f"there is no input {target.input} of numbers to be the target")
            elif target.per_step and self.window == 1:
                raise ValueError("a target per step needs a window of more than one row")
        _unlike("the targets", columns)


def _unlike(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} hold {name!r} twice")
        seen.add(name)
