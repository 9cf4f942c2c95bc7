"""Curves and bars out of characters. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

Glyphs: TypeAlias = Literal["braille", "block", "ascii"]
_BLOCKS = " ▁▂▃▄▅▆▇█"
_LEVELS = "_.-'"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille cell, by row and column."""


def suited(environment: Mapping[str, str], encoding: str) -> Glyphs:
    """What a terminal can draw: the Linux console has no braille, and without UTF-8 there is only ASCII."""
    if "utf" not in encoding.lower():
        return "ascii"
    return "block" if environment.get("TERM", "") in {"linux", "vt100", "vt220"} else "braille"


def curve(values: Sequence[float | None], width: int, height: int, glyphs: Glyphs) -> list[str]:
    """A curve in `height` lines of at most `width` characters; the newest value is on the right.

    More values than fit are averaged; fewer are spread out where the curve is higher than a line. Those that are not
    finite are left out.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    per_cell, levels = {"braille": (2, 4), "block": (1, 8), "ascii": (1, len(_LEVELS))}[glyphs]
    if not known or width < 1 or height < 1:
        return [""] * height
    fitting = _thinned(known, width * per_cell)
    points = _levels(_spread(fitting, width * per_cell) if height > 1 else fitting, height * levels)
    if glyphs == "braille":
        return _braille(points, height)
    if glyphs == "block":
        return _filled(points, height)
    return _drawn(points, height)


def bar(fraction: float, width: int, glyphs: Glyphs) -> str:
    """A bar of `width` characters, filled from the left."""
    filled = round(max(0.0, min(1.0, fraction)) * width)
    full, empty = ("#", ".") if glyphs == "ascii" else ("█", "░")
    return full * filled + empty * (width - filled)


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """At most `most` values: means of neighbours."""
    if len(values) <= most:
        return list(values)
    edges = [index * len(values) // most for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _spread(values: Sequence[float], count: int) -> list[float]:
    """`count` values on the straight lines between these."""
    last = len(values) - 1
    places = [index * last / max(1, count - 1) for index in range(count)]
    lower = [min(int(place), max(0, last - 1)) for place in places]
    return [
        values[at] + (place - at) * (values[min(at + 1, last)] - values[at])
        for at, place in zip(lower, places, strict=True)
    ]


def _levels(values: Sequence[float], count: int) -> list[int]:
    """Each value as 0 (lowest) to count - 1; a level line lies in the middle."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return [(count - 1) // 2] * len(values)
    return [round((value - low) / (high - low) * (count - 1)) for value in values]


def _braille(points: Sequence[int], height: int) -> list[str]:
    """Two points a cell, joined by vertical strokes."""
    cells = [[0] * ((len(points) + 1) // 2) for _ in range(height)]
    for column, point in enumerate(points):
        before = points[column - 1] if column else point
        start, stop = (
            (before + 1, point) if before < point else (point, before - 1) if before > point else (point, point)
        )
        for level in range(start, stop + 1):
            row = 4 * height - 1 - level
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    return ["".join(chr(0x2800 + bits) for bits in row) for row in cells]


def _filled(points: Sequence[int], height: int) -> list[str]:
    """Columns that stand on the ground."""
    return [
        "".join(_BLOCKS[max(0, min(8, point + 1 - 8 * (height - 1 - row)))] for point in points)
        for row in range(height)
    ]


def _drawn(points: Sequence[int], height: int) -> list[str]:
    size = len(_LEVELS)
    return [
        "".join(_LEVELS[point % size] if point // size == height - 1 - row else " " for point in points)
        for row in range(height)
    ]
