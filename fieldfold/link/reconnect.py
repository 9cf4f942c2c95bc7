"""When to try again, and with which version of the protocol."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
UNANSWERED_BEFORE_FALLBACK = 2
"""One CONNECT closed without an answer may be a broker that is just going down."""
HEALTHY_AFTER_S = 5.0
"""Two clients with one name throw each other out right after each connect, on a slow machine a little later."""
SHORT_SESSIONS_OF_A_CLONE = 2
AFTER_TAKEOVER_S = 30.0
"""Two programs of one name throw each other out for ever; at least they leave each other some time."""


class Outcome(Enum):
    """How far a connection came."""

    UNREACHABLE = auto()
    """No TCP or TLS connection, or TLS ended it."""
    UNANSWERED = auto()
    """The broker closed or kept silent after CONNECT."""
    UNSUPPORTED = auto()
    """CONNACK: this version of MQTT is not spoken here."""
    REFUSED = auto()
    """CONNACK: any other failure."""
    UP = auto()
    """A session, however short."""
    TAKEN_OVER = auto()
    """A session that another client of our name ended."""


def backoff_s(failures: int, jitter: float) -> float:
    """Seconds to wait after `failures` lost connections in a row: 1, 2, 4 .. 60.

    `jitter` in [0, 1) takes up to half away, so that a fleet does not come back to a restarted broker all at once.
    """
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 6)) * (1.0 - jitter / 2)


class Retries:
    """How often in a row it went wrong, and hence how long to wait."""

    def __init__(self) -> None:
        self._failures = 0
        self._short_sessions = 0
        self._at_least_s = 0.0

    def note(self, outcome: Outcome, up_s: float) -> None:
        """Learns from a connection that ended; one that outlived the wait before it starts the count afresh."""
        healthy = outcome is Outcome.UP and up_s > max(HEALTHY_AFTER_S, backoff_s(self._failures, 0.0))
        self._failures = 1 if healthy else self._failures + 1
        self._at_least_s = AFTER_TAKEOVER_S if outcome is Outcome.TAKEN_OVER else 0.0
        self._short_sessions = self._short_sessions + 1 if outcome is Outcome.UP and not healthy else 0

    def wait_s(self, jitter: float) -> float:
        """Seconds until the next attempt; `jitter` as in `backoff_s`."""
        return max(self._at_least_s * (1.0 + jitter), backoff_s(self._failures, jitter))

    @property
    def looks_cloned(self) -> bool:
        """True once in a series of sessions that the broker ended soon after they began.

        MQTT 5 has a reason code for it, which Mosquitto 2.0.11 does not send.
        """
        return self._short_sessions == SHORT_SESSIONS_OF_A_CLONE


class ProtocolChoice:
    """MQTT 5 first; 3.1.1 where the broker does not speak it; then whatever worked."""

    def __init__(self) -> None:
        self.protocol: Literal["5", "3.1.1"] = "5"
        self._proven = False
        self._unanswered = 0

    def note(self, outcome: Outcome) -> None:
        """Learns from a connection that ended."""
        if outcome in {Outcome.UP, Outcome.TAKEN_OVER}:
            self._proven = True
        self._unanswered = self._unanswered + 1 if outcome is Outcome.UNANSWERED else 0
        closes = not self._proven and self._unanswered >= UNANSWERED_BEFORE_FALLBACK
        if closes or outcome is Outcome.UNSUPPORTED:
            self.protocol = "3.1.1" if self.protocol == "5" else "5"
            self._unanswered = 0
