"""What is said about the link: how it is, what was refused, and whether another program uses the node's name."""

from __future__ import annotations

import logging

from fieldfold.link.session import Connected, Disconnected, Refused

log = logging.getLogger(__name__)
MENDED_AFTER_S = 120.0
"""What ended sessions again and again counts as mended when one has lasted this long."""


class LinkState:
    """Fed with the link's events; logs each change once.

    Attributes:
        words: for the status.
        connections: how often the link came up.
        url: where the broker is.
        up_since: when this connection came up, on the monotonic clock; None while there is none.
        trouble: what a connection does not mend, and what to do about it; empty where there is nothing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.words = "connecting"
        self.connections = 0
        self.trouble = ""
        self._refusal: Refused | None = None
        self.up_since: float | None = None

    def connected(self, event: Connected, now: float) -> None:
        """The link is up."""
        self.connections += 1
        self.up_since, self._refusal = now, None
        self.words = f"MQTT {event.limits.protocol}"
        log.info("connected to %s (%s)", self.url, self.words)

    def disconnected(self, event: Disconnected) -> None:
        """Says why, once; a refusal was said before, with what to do about it."""
        self.up_since = None
        words = f"down: {event.reason}"
        if self.words != words and (self._refusal is None or self._refusal.reason != event.reason):
            self.words = words
            log.warning("link down: %s; it is tried again and again, and nothing is lost", event.reason)

    def refused(self, event: Refused) -> None:
        """Something that somebody must mend."""
        words = f"{event.reason}; {event.hint}"
        self._refusal, self.words = event, f"refused: {words}"
        if words != self.trouble:
            log.error("refused: %s", words)
        if event.lasting:
            self.trouble = words

    def tick(self, now: float) -> None:
        """Forgets a trouble that has not come back for a while."""
        if self.trouble and self.up_since is not None and now - self.up_since > MENDED_AFTER_S:
            log.info("the link has been up for %.0f s: sessions are not ended any more", MENDED_AFTER_S)
            self.trouble = ""
