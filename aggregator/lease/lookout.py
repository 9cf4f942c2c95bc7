"""Looks whether another aggregator is at work, before the session is taken that both would use."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

import msgspec

from aggregator.lease import claim
from fieldfold.errors import WireError
from fieldfold.link.session import Connected, Disconnected, Link, Received, Refused
from fieldfold.wire.messages import AggregatorPresence, read

WAKE_S = 0.1


class Looked(msgspec.Struct, frozen=True):
    """What the broker retains of the federation's aggregator; None for nothing."""

    found: AggregatorPresence | None


class Lookout:
    """A short session under a name of its own, in a thread of its own.

    Args:
        link: not started yet.
        topic: the aggregator's status.
        tell: takes why there is no connection, as the link says it, and once what was `Looked`.
    """

    def __init__(self, link: Link, topic: str, tell: Callable[[object], None]) -> None:
        self._link, self._topic, self._tell = link, topic, tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        """Begins.

        Raises:
            LinkError: when the link's configuration cannot work.
        """
        self._link.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends it, whether something was seen or not."""
        self._stopping.set()

    def _run(self) -> None:
        looked = self._look()
        self._link.stop()
        if looked is not None:
            self._tell(looked)

    def _look(self) -> Looked | None:
        none_at = math.inf
        while not self._stopping.is_set():
            if time.monotonic() >= none_at:
                return Looked(None)
            try:
                event = self._link.events.get(timeout=WAKE_S)
            except queue.Empty:
                continue
            if isinstance(event, Received) and event.payload:
                try:
                    return Looked(read(AggregatorPresence, event.payload))
                except WireError:
                    return Looked(None)
            elif isinstance(event, Connected):
                # The broker may know us from an earlier look; what it retains comes only to a new subscription.
                self._link.unsubscribe(self._topic)
                self._link.subscribe(self._topic, queued=False)
                none_at = time.monotonic() + claim.LOOK_S
            elif isinstance(event, Disconnected | Refused):
                none_at = math.inf
                self._tell(event)
        return None
