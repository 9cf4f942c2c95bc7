"""The stages of a build, in their order, for whoever shows how far it is; naming them loads nothing."""

from __future__ import annotations

from typing import Final, get_args

from fieldfold.task.manifest import SectionName

LOADING: Final = "loading torch"
READING: Final = "running the task file"
FLOAT64: Final = "training the model in float64 torch"
COMPARING: Final = "comparing the bundle with float64 torch"


def exporting(section: SectionName) -> str:
    """The stage in which a section with operators is written."""
    return f"exporting {section}"


EXPORTED: Final[tuple[SectionName, ...]] = tuple(name for name in get_args(SectionName) if "." in name)
STAGES: Final = (LOADING, READING, FLOAT64, *map(exporting, EXPORTED), COMPARING)
