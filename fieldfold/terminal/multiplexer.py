"""What GNU screen does otherwise than a terminal, as far as that can be mended from inside it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

PIECE_CHARACTERS = 240
"""GNU screen cuts off longer strings."""


def has_mouse(environment: Mapping[str, str]) -> bool:
    """Whether the mouse may be asked for: GNU screen then keeps a lone escape back until the next key."""
    return "STY" not in environment


def to_clipboard(text: str) -> str:
    """What has a terminal put text into the clipboard of whoever sits there (OSC 52)."""
    return f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a"


def passed_on(sequence: str, environment: Mapping[str, str]) -> str:
    """A sequence for the terminal itself: GNU screen passes on what stands between its own signs, piece by piece."""
    if "STY" not in environment:
        return sequence
    pieces = [sequence[at : at + PIECE_CHARACTERS] for at in range(0, len(sequence), PIECE_CHARACTERS)]
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
