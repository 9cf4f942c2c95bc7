"""A program in a real tmux: keys go in, and what stands on the screen comes out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_S = 120.0


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Waits, as long as a busy machine needs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def end_daemon(path: Path) -> None:
    """Ends whoever listens there, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):  # it ended with something of ours unread
            assert client.recv(1) == b"", "it hangs up"


class Tmux:
    """A terminal of 80 by 24 with one program in it, on a tmux server of its own."""

    def __init__(self, socket: Path, command: str) -> None:
        program = shutil.which("tmux")
        if program is None:
            pytest.fail("tmux is not installed: `make test` installs it (apt install tmux)", pytrace=False)
        self._tmux = [program, "-S", str(socket), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", "80", "-y", "24", command)
        self._run("set-option", "-s", "set-clipboard", "on")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=False, timeout=10)
        return done.stdout

    @property
    def is_there(self) -> bool:
        return bool(self._run("list-sessions"))

    def press(self, key: str) -> None:
        self._run("send-keys", key)

    def type(self, words: str) -> None:
        self._run("send-keys", "-l", words)

    def was_copied(self, words: str) -> None:
        """Waits until a program has put the words into the clipboard."""
        until(lambda: words in self._run("show-buffer"), f"{words!r} was not copied")

    def reads(self, *words: str) -> str:
        """Waits until all the words stand on the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(word in (shown := self._run("capture-pane", "-p")) for word in words):
            assert time.monotonic() < deadline, f"{words} did not come up:\n{shown}"
            time.sleep(0.1)
        return shown

    def end(self) -> None:
        self._run("kill-server")
