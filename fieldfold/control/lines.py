"""Lines that come in over a socket, and how many of them say the same."""

from __future__ import annotations

import contextlib
import socket

READ_BYTES = 1 << 16


class Lines:
    """The lines of one connection, for one thread.

    Args:
        connection: blocking, or with a timeout.
        max_bytes: a line that is longer is given in part.
    """

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        self._connection, self._max_bytes = connection, max_bytes
        self._read = bytearray()

    def next(self) -> bytes:
        """The next line with its end, waited for; empty when the other side has gone.

        Raises:
            OSError: when the connection breaks.
        """
        looked_at = 0
        while (end := self._read.find(b"\n", looked_at)) < 0 and len(self._read) < self._max_bytes:
            looked_at = len(self._read)
            if not (more := self._connection.recv(READ_BYTES)):
                return b""
            self._read += more
        return self._taken(end + 1 or len(self._read))

    def repeats(self, line: bytes) -> int:
        """Takes what has come already and says the same as `line`; gives how many lines that were."""
        with contextlib.suppress(BlockingIOError):
            self._read += self._connection.recv(READ_BYTES, socket.MSG_DONTWAIT)
        found = 0
        while self._read.startswith(line):
            self._taken(len(line))
            found += 1
        return found

    def _taken(self, count: int) -> bytes:
        taken = bytes(self._read[:count])
        del self._read[:count]
        return taken
