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


def plain(text: str) -> str:
    """Text from elsewhere without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
