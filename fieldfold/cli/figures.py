"""Numbers and other people's words, for a terminal."""

from __future__ import annotations


def size(size_bytes: float) -> str:
    """A size in powers of 1000: `812 B`, `14.2 kB`, `1.3 MB`."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} GB"


def number(value: float | None) -> str:
    """Four significant digits, or a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time in whole units, without what would change while it is read: `2 min`, `3 h 5 min`, `14 days`."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} days" if minutes >= 48 * 60 else f"1 day {minutes // 60 - 24} h"


def plain(text: str) -> str:
    """Text from elsewhere without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
