"""How fast a link sends: brokers cut off who exceeds their messages or bytes per second."""

from __future__ import annotations

import threading
from collections.abc import Callable


class TokenBucket:
    """Holds the burst of a second. A message larger than the bucket passes, and puts it into debt."""

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._level = self._burst = max(1.0, per_s)
        self._filled_at_s = now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds from `now_s` until `amount` may be taken."""
        level = min(self._burst, self._level + (now_s - self._filled_at_s) * self._per_s)
        self._level, self._filled_at_s = level, now_s
        return max(0.0, (amount - level) / self._per_s)

    def take(self, amount: float) -> None:
        """Spends `amount` now, even where it has yet to be waited for."""
        self._level -= amount


class Pace:
    """Messages and bytes per second of one link, over all its connections. Thread-safe.

    Args:
        messages_per_s: sustained rate; one second's worth may go at once.
        bytes_per_s: payload bytes, likewise.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, messages_per_s: float, bytes_per_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._messages = TokenBucket(messages_per_s, clock())
        self._bytes = TokenBucket(bytes_per_s, clock())

    def reserve(self, size_bytes: int, patience_s: float) -> float | None:
        """Seconds to wait before sending `size_bytes`, already booked; None, booking nothing, beyond `patience_s`."""
        with self._lock:
            now_s = self._clock()
            wait_s = max(self._messages.wait_s(1, now_s), self._bytes.wait_s(size_bytes, now_s))
            if wait_s > max(0.0, patience_s):
                return None
            self._messages.take(1)
            self._bytes.take(size_bytes)
            return wait_s
