"""The publishes of one connection that are on their way: how many there may be, and what became of each."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fieldfold.errors import LinkDownError

FIRST_FAILURE_CODE = 0x80
"""MQTT 5 (2.4): reason codes from here on mean that the broker did not take the message."""


class Flight:
    """One publish on its way (a `Delivery`)."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._over = threading.Event()
        self._accepted = False

    def end(self, *, accepted: bool) -> None:
        """Wakes whoever waits; only the first call counts."""
        if not self._over.is_set():
            self._accepted = accepted
            self._over.set()

    def wait(self, timeout_s: float) -> bool:
        """Blocks until the broker has acknowledged the message; False for a refusal, a dead link or lost patience."""
        return self._over.wait(timeout_s) and self._accepted


class SendWindow:
    """At most `size` flights at once. Closed until `open`, and for good after `close`. Thread-safe.

    Args:
        refused: told topic and reason code of each message that the broker acknowledged with a failure.
    """

    def __init__(self, refused: Callable[[str, int], None]) -> None:
        self._refused = refused
        self._changed = threading.Condition()
        self._size = 0
        self._taken = 0
        self._flights: dict[int, Flight] = {}
        self._early: dict[int, int] = {}
        self._closed = threading.Event()

    def open(self, size: int) -> None:
        """Lets `size` messages fly at once."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def close(self) -> None:
        """Fails every flight and every thread that waits for room."""
        with self._changed:
            self._closed.set()
            flights, self._flights = list(self._flights.values()), {}
            self._changed.notify_all()
        for flight in flights:
            flight.end(accepted=False)

    def enter(self, timeout_s: float) -> None:
        """Takes a place, waiting for one; give it back with `leave`, or with `launch` and the broker's answer.

        Raises:
            LinkDownError: when the window is closed or stays full.
        """
        with self._changed:
            free = self._changed.wait_for(lambda: self._closed.is_set() or self._taken < self._size, timeout_s)
            if self._closed.is_set():
                raise LinkDownError("the link went down while a message waited to be sent")
            if not free:
                raise LinkDownError(
                    f"the broker acknowledged none of {self._taken} messages within {timeout_s:.0f} s",
                    "the network or the broker is too slow; try again later",
                )
            self._taken += 1

    def pause(self, seconds: float) -> None:
        """Waits while holding a place.

        Raises:
            LinkDownError: when the window closed meanwhile.
        """
        if self._closed.wait(seconds):
            raise LinkDownError("the link went down while a message waited to be sent")

    def leave(self) -> None:
        """Gives a place back unused."""
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def launch(self, packet_identifier: int, topic: str) -> Flight:
        """The flight of a message just sent; its acknowledgement may already have overtaken this call."""
        flight = Flight(topic)
        with self._changed:
            if self._closed.is_set():
                flight.end(accepted=False)
                return flight
            code = self._early.pop(packet_identifier, None)
            if code is None:
                self._flights[packet_identifier] = flight
                return flight
        self._land(flight, code)
        return flight

    def settle(self, packet_identifier: int, code: int) -> None:
        """The broker's PUBACK."""
        with self._changed:
            flight = self._flights.pop(packet_identifier, None)
            if flight is None:
                self._early[packet_identifier] = code
                return
        self._land(flight, code)

    def _land(self, flight: Flight, code: int) -> None:
        self.leave()
        flight.end(accepted=code < FIRST_FAILURE_CODE)
        if code >= FIRST_FAILURE_CODE:
            self._refused(flight.topic, code)
