"""Numbers and other people's words, for a terminal."""

from __future__ import annotations

import pytest

from fieldfold.cli.figures import number, plain, size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (14_230, "14.2 kB"), (1_300_000, "1.3 MB"), (7.5e12, "7500.0 GB")],
)
def test_sizes_are_in_powers_of_a_thousand(size_bytes: float, text: str) -> None:
    assert size(size_bytes) == text


def test_what_is_not_known_is_a_dash() -> None:
    assert (number(None), number(12.34567), number(0.0001234)) == ("-", "12.35", "0.0001234")


def test_words_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert plain("fine\x1b[2J\x07\r\nforged") == "fine?[2J???forged"
