"""A program on a pseudo-terminal: what it sends is timed and counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

PATIENCE_S = 60.0
END_S = 10.0


class Terminal:
    """80 by 24 with one program in it; use as a context manager."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command, self._environment = command, environment or {}
        self.began_at = 0.0
        self.num_bytes = 0

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.began_at = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **self._environment},
            start_new_session=True,
        )
        os.close(slave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the program."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def pid(self) -> int:
        """The program."""
        return self._process.pid

    def press(self, keys: str, sign: str) -> float:
        """Seconds from a key to the moment at which `sign` was sent to the screen."""
        begun = time.monotonic()
        os.write(self._master, keys.encode())
        return self.reads(sign) - begun

    def reads(self, sign: str) -> float:
        """When `sign` was sent, on the monotonic clock.

        Raises:
            TimeoutError: when it was not.
        """
        wanted, seen = sign.encode(), b""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen += self._read(1.0)
            if wanted in seen:
                return time.monotonic()
        raise TimeoutError(f"{sign!r} was not sent in {PATIENCE_S:.0f} s; the last was {seen[-300:]!r}")

    def settle_for(self, seconds: float) -> None:
        """Lets what is still to come pass by."""
        self.watch(seconds)

    def watch(self, seconds: float) -> int:
        """Bytes sent in a time."""
        before, deadline = self.num_bytes, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)
        return self.num_bytes - before

    def _read(self, seconds: float) -> bytes:
        """What comes within a time; empty for nothing."""
        if not select.select([self._master], [], [], seconds)[0]:
            return b""
        with contextlib.suppress(OSError):
            found = os.read(self._master, 1 << 16)
            self.num_bytes += len(found)
            return found
        return b""
