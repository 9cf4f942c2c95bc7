"""What a link is subscribed to, across connections."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Subscription(NamedTuple):
    """A filter, and whether the broker is to queue for it while the link is down."""

    topic_filter: str
    queued: bool

    @property
    def qos(self) -> int:
        """Quality of service to ask for."""
        return 1 if self.queued else 0


class Subscriptions:
    """Filters in the order they were asked for, and which of them the broker's present session holds."""

    def __init__(self) -> None:
        self._wanted: dict[str, Subscription] = {}
        self._granted: set[str] = set()
        self._withdrawn: set[str] = set()

    def add(self, subscription: Subscription, *, sent: bool) -> bool:
        """Remembers a subscription; whether it is new. `sent`: there is a connection to subscribe on now."""
        topic_filter = subscription.topic_filter
        if topic_filter in self._wanted:
            return False
        self._wanted[topic_filter] = subscription
        if sent:
            self._withdrawn.discard(topic_filter)
        return True

    def remove(self, topic_filter: str) -> None:
        """Forgets a filter; the next `due` makes sure that the broker does, too."""
        if self._wanted.pop(topic_filter, None) is not None:
            self._granted.discard(topic_filter)
            self._withdrawn.add(topic_filter)

    def grant(self, topic_filter: str) -> None:
        """The broker confirmed the filter."""
        if topic_filter in self._wanted:
            self._granted.add(topic_filter)

    def due(self, protocol: Literal["5", "3.1.1"], *, session_present: bool) -> tuple[list[str], list[Subscription]]:
        """The filters to unsubscribe from, and then those to subscribe to, after a connect.

        MQTT 5 can ask for retained messages only where the subscription is new, so all are sent. MQTT 3.1.1 cannot:
        each SUBSCRIBE brings every retained message again, so what the broker's session still holds is left alone.
        """
        if not session_present:
            self._granted.clear()
            self._withdrawn.clear()
        withdrawn, self._withdrawn = sorted(self._withdrawn), set()
        return withdrawn, [s for s in self._wanted.values() if protocol == "5" or s.topic_filter not in self._granted]
