"""What is wrong with a node's messages, in the log, now and then: a flood of them must not fill a disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)
EVERY_S = 10.0
"""A node is complained of this often at most; what came between is counted."""


class Complaints:
    """One line a node and EVERY_S; an empty name stands for whoever is not known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, node: str, what: str) -> None:
        """Logs it, or counts it for the next line of this node."""
        now_s = self._clock()
        at_s, unsaid = self._said.get(node, (-EVERY_S, 0))
        if now_s - at_s < EVERY_S:
            self._said[node] = at_s, unsaid + 1
            return
        self._said[node] = now_s, 0
        log.warning("%s%s", what, f" ({unsaid} more like it before)" if unsaid else "")
