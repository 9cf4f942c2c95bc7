"""Whether a thread makes progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """One thread beats, another looks.

    Args:
        limit_s: a thread that works counts as alive for this long after its last beat.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._beat_at = time.monotonic()
        self._resting = False

    def beat(self) -> None:
        """The thread has got further."""
        self._beat_at = time.monotonic()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """The thread waits until it is woken, however long that takes."""
        self._resting = True
        try:
            yield
        finally:
            self.beat()
            self._resting = False

    @property
    def is_live(self) -> bool:
        """Whether the thread rests, or has got further not long ago."""
        return self._resting or time.monotonic() - self._beat_at < self._limit_s
