"""Text in a column -> its index among what the task knows: categories, classes, yes and no."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import numpy as np

from fieldfold.errors import DataError
from fieldfold.sensors.cells import canonical_label, listed, shown
from fieldfold.sensors.schema import Feature
from fieldfold.sensors.source import Floats, Texts


class Vocabulary(msgspec.Struct, frozen=True):
    """What the texts of a column mean.

    Attributes:
        what: `category`, `class` or `label`, for errors.
        indices: text in its canonical spelling -> index.
        others: index of every other text; None: it is an error.
        any_case: whether capitals make no difference.
    """

    what: str
    indices: Mapping[str, int]
    others: int | None = None
    any_case: bool = False

    def look_up(self, texts: Texts, missing: Collection[str], origin: str) -> Floats:
        """Index of each of `texts` `(rows,)` as float64, NaN where it is one of `missing`.

        Raises:
            DataError: naming `origin`, for a text that is neither known nor missing.
        """
        unique, inverse = np.unique(texts, return_inverse=True)
        found = np.full(len(unique), np.nan)
        for place, text in enumerate(unique):
            label = canonical_label(str(text))
            index = self.indices.get(label.lower() if self.any_case else label, self.others)
            if label in missing:
                continue
            if index is None:
                raise DataError(
                    f"{origin}: {self.what} {shown(label)} is none of the task's",
                    f"it knows {listed(self.indices)}; list it in data.missing_values to leave such rows out",
                )
            found[place] = index
        return found[inverse]


YES_OR_NO = Vocabulary("label", {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}, any_case=True)


def of_categories(feature: Feature) -> Vocabulary | None:
    """The vocabulary of a feature; None for a number."""
    if not feature.categories:
        return None
    others = len(feature.categories) if feature.others else None
    return Vocabulary("category", _numbered(feature.categories), others)


def of_classes(classes: tuple[str, ...]) -> Vocabulary | None:
    """The vocabulary of a target; None for a number."""
    return Vocabulary("class", _numbered(classes)) if classes else None


def _numbered(labels: tuple[str, ...]) -> dict[str, int]:
    return {canonical_label(label): index for index, label in enumerate(labels)}
