"""Lets any thread interrupt a poll."""

from __future__ import annotations

import contextlib
import select
import socket
from types import TracebackType
from typing import Self


class WakeablePoll:
    """Waits for one socket or for `wake`, whichever comes first. Close it from the waiting thread."""

    def __init__(self) -> None:
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ear.close()
        self._bell.close()

    def wake(self) -> None:
        """Ends the present or the next `wait`; a full or closed pair needs no ring."""
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def wait(self, descriptor: int, *, for_room: bool, timeout_s: float) -> bool:
        """Whether `descriptor` has something to read (or an error to fetch); `for_room` waits for writing too."""
        poller = select.poll()
        poller.register(self._ear, select.POLLIN)
        poller.register(descriptor, select.POLLIN | (select.POLLOUT if for_room else 0))
        ready = dict(poller.poll(timeout_s * 1000))
        if self._ear.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(4096)
        return bool(ready.get(descriptor, 0) & ~select.POLLOUT)
