"""Which rows train, validate and test: by series where there are several, by time where there is one.

A series goes where the hash of its name says, so the split needs no memory and no random numbers, and is the same
on every start and machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

Part: TypeAlias = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
SALT: Final = b"fieldfold split"


class Segment(msgspec.Struct, frozen=True):
    """Rows `start` to `stop` (exclusive) of one series, all in the same part."""

    part: Part
    start: int
    stop: int


def place(series_id: str) -> float:
    """Where a series stands in [0, 1): the first 53 bits of a salted BLAKE2b of its name."""
    digest = hashlib.blake2b(series_id.encode(), digest_size=8, salt=SALT).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def split(
    lengths: Mapping[str, int], *, window: int, validation_fraction: float, test_fraction: float
) -> dict[str, tuple[Segment, ...]]:
    """Segments of each series, given its number of rows; `window` rows is the gap where one series is split."""
    if len(lengths) == 1:
        ((name, rows),) = lengths.items()
        return {name: by_time(rows, window, validation_fraction, test_fraction)}
    parts = by_series(lengths, validation_fraction, test_fraction)
    return {name: (Segment(parts[name], 0, rows),) for name, rows in lengths.items()}


def by_series(names: Iterable[str], validation_fraction: float, test_fraction: float) -> dict[str, Part]:
    """The part of each series: validation below `validation_fraction`, test in the next `test_fraction`, else train.

    When none falls into validation the series with the lowest place goes there; when none is left to train the one
    with the highest place does. A series that trains never moves to validation as others arrive, unless it trained
    only because there was no other (nor does one that was alone, and split by time, keep its rows where they were).
    """
    order = sorted(names, key=lambda name: (place(name), name))
    parts: dict[str, Part] = {}
    for name in order:
        if place(name) < validation_fraction:
            parts[name] = "validation"
        else:
            parts[name] = "test" if place(name) < validation_fraction + test_fraction else "train"
    if len(order) > 1 and validation_fraction > 0 and "validation" not in parts.values():
        parts[order[0]] = "validation"
    if order and "train" not in parts.values():
        parts[order[-1]] = "train"
    return parts


def by_time(rows: int, window: int, validation_fraction: float, test_fraction: float) -> tuple[Segment, ...]:
    """Train, then validation, then test, a gap of `window` rows between each two.

    A part that is asked for gets at least one window; where the rows do not allow for that, all of them train.
    """
    wanted: list[tuple[Part, float]] = [("validation", validation_fraction), ("test", test_fraction)]
    held_out = [(part, fraction) for part, fraction in wanted if fraction > 0]
    usable = rows - window * len(held_out)
    sizes = [max(window, round(fraction * usable)) for _, fraction in held_out]
    train = usable - sum(sizes)
    if train < window:
        return (Segment("train", 0, rows),)
    segments = [Segment("train", 0, train)]
    for (part, _), size in zip(held_out, sizes, strict=True):
        start = segments[-1].stop + window
        segments.append(Segment(part, start, start + size))
    return tuple(segments)
