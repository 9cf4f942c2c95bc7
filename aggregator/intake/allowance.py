"""What each node may send: a token bucket, so that one cannot take the time of the others. Pure."""

from __future__ import annotations

LEAST_COST = 1 / 64
"""Of a message, in updates: a large update in many chunks costs more than one, but not as much as they are many."""


class Allowance:
    """Updates that each node may still send at once; they come back with time.

    Args:
        per_minute: updates a minute that a node may send for ever; a minute's worth of them may come at once. 0: as
            many as it likes.
    """

    def __init__(self, per_minute: float) -> None:
        self._most = max(per_minute, 1.0)
        self._per_s = per_minute / 60
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, node: str, num_chunks: int, now_s: float) -> bool:
        """Whether the node may send a message that is one of `num_chunks`; `now_s` never goes back."""
        if not self._per_s:
            return True
        left, at_s = self._left.get(node, (self._most, now_s))
        left = min(self._most, left + (now_s - at_s) * self._per_s)
        cost = max(LEAST_COST, 1 / num_chunks)
        allowed = left >= cost
        self._left[node] = (left - cost if allowed else left, now_s)
        return allowed
