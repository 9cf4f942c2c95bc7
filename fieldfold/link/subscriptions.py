"""What a link is subscribed to, across connections."""

from __future__ import annotations

from typing import Literal


class Subscriptions:
    """Filters in the order they were asked for, and which of them the broker's present session holds."""

    def __init__(self) -> None:
        self._granted: dict[str, bool] = {}
        self._withdrawn: set[str] = set()

    def add(self, topic_filter: str, *, sent: bool) -> bool:
        """Remembers a filter; whether it is new. `sent`: there is a connection to subscribe on now."""
        if topic_filter in self._granted:
            return False
        self._granted[topic_filter] = False
        if sent:
            self._withdrawn.discard(topic_filter)
        return True

    def remove(self, topic_filter: str) -> None:
        """Forgets a filter; the next `due` makes sure that the broker does, too."""
        if self._granted.pop(topic_filter, None) is not None:
            self._withdrawn.add(topic_filter)

    def grant(self, topic_filter: str) -> None:
        """The broker confirmed the filter."""
        if topic_filter in self._granted:
            self._granted[topic_filter] = True

    def due(self, protocol: Literal["5", "3.1.1"], *, session_present: bool) -> tuple[list[str], list[str]]:
        """The filters to unsubscribe from, and then those to subscribe to, after a connect.

        MQTT 5 can ask for retained messages only where the subscription is new, so all are sent. MQTT 3.1.1 cannot:
        each SUBSCRIBE brings every retained message again, so what the broker's session still holds is left alone.
        """
        if not session_present:
            self._granted = dict.fromkeys(self._granted, False)
            self._withdrawn.clear()
        withdrawn, self._withdrawn = sorted(self._withdrawn), set()
        return withdrawn, [f for f, granted in self._granted.items() if protocol == "5" or not granted]
