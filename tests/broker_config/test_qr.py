"""The invitation's code as a picture: on a terminal that has room for it, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import segno

from broker_config.initialise import initialise
from fieldfold.trust.invitation import CODE_PREFIX, read_code

BLOCKS = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def invite_on_a_terminal(root: Path, columns: int, lines: int) -> str:
    """What somebody sees who types the command there."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
    command = [sys.executable, "-m", "fieldfold", "broker", "invite", "press-07", "--folder", str(root)]
    process = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, env=environment)
    os.close(far)
    said = b""
    while chunk := _read(near):
        said += chunk
    os.close(near)
    assert process.wait(30) == 0, said.decode()
    return said.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_a_large_terminal_shows_the_very_code(tmp_path: Path) -> None:
    initialise(tmp_path / "broker")

    said = invite_on_a_terminal(tmp_path / "broker", 140, 70)

    code = next(line for line in said.splitlines() if line.startswith(CODE_PREFIX))
    assert read_code(code).node == "press-07"
    picture = [line for line in said.splitlines() if line and set(line) <= set(BLOCKS)]
    rows = [[BLOCKS[each][half] for each in line] for line in picture for half in (0, 1)]
    expected = segno.make(code, error="l", micro=False, boost_error=False).matrix_iter(border=2)
    assert rows[: len(rows[0])] == [[1 - module for module in row] for row in expected]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (140, 40), (100, 70)])
def test_a_small_terminal_is_told_how_large_it_would_have_to_be(tmp_path: Path, columns: int, lines: int) -> None:
    initialise(tmp_path / "broker")

    said = invite_on_a_terminal(tmp_path / "broker", columns, lines)

    assert f"this terminal has {columns} and {lines}" in said
    assert "█" not in said
