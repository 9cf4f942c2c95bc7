"""How far a long command is, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from fieldfold.cli import progress as progress_module
from fieldfold.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "DRAWN_EVERY_S", 0.0)
    monkeypatch.setattr(progress_module, "TOLD_EVERY_S", 0.0)


def test_a_terminal_sees_a_bar_that_moves_and_ends_with_a_line() -> None:
    stream = Terminal()
    with Progress("pages", 2000, stream) as progress:
        progress(500)
        progress(2000)
    assert stream.getvalue() == (
        "\r\033[K[#####...............] 500 of 2,000 pages  0 s"
        "\r\033[K[####################] 2,000 of 2,000 pages  0 s"
        "\r\033[K[####################] 2,000 of 2,000 pages  0 s\n"
    )


def test_elsewhere_there_are_plain_lines() -> None:
    stream = io.StringIO()
    with Progress("pages", 0, stream) as progress:
        progress(500)
        progress(1500, 3000)
    assert stream.getvalue() == "500 pages  0 s\n1,500 of 3,000 pages  0 s\n"


def test_what_is_over_soon_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "TOLD_EVERY_S", 10.0)
    stream = io.StringIO()
    with Progress("pages", 10, stream) as progress:
        progress(10)
    assert stream.getvalue() == ""
