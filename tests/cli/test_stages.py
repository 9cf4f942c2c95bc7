"""A bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import io

import pytest

from fieldfold.cli.stages import Stages

NAMES = ("reading", "writing")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What is left on the screen: each line as it was last written."""
        return [line.rpartition("\r\033[K")[2] for line in self.getvalue().split("\n")[:-1]]


def test_without_a_terminal_each_stage_is_a_numbered_line() -> None:
    stream = io.StringIO()
    with Stages(NAMES, stream) as told:
        told("reading")
        told("7 rows")
        told("writing")
    assert stream.getvalue() == "[1/2] reading\n      7 rows\n[2/2] writing\n"


def test_a_terminal_keeps_a_line_for_each_stage_with_its_details_below() -> None:
    terminal = Terminal()
    with Stages(NAMES, terminal) as told:
        told("reading")
        told("7 rows")
        told("writing")
    reading, rows, writing = terminal.lines()
    assert reading.split() == ["reading", "0.0", "s"]
    assert rows == "  7 rows"
    assert writing.split() == ["writing", "0.0", "s"]
    assert "[....................] reading" in terminal.getvalue()
    assert "[##########..........] writing" in terminal.getvalue()


def test_a_stage_that_fails_is_left_as_such_and_the_error_goes_on() -> None:
    terminal = Terminal()

    def fail() -> None:
        with Stages(NAMES, terminal) as told:
            told("reading")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert [line.split() for line in terminal.lines()] == [["reading", "failed"]]


def test_nothing_told_leaves_nothing() -> None:
    terminal = Terminal()
    with Stages(NAMES, terminal):
        pass
    assert terminal.getvalue() == ""
