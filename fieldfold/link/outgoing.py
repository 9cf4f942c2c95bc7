"""A queue before a link, so that whoever has something to say need not wait until it can be sent.

Retained messages replace one another by topic; the others keep their order and are bounded: the oldest are dropped,
because every exchange that matters is repeated by its protocol until it is answered.
"""

from __future__ import annotations

import collections
import logging
import threading

from fieldfold.errors import LinkDownError, LinkError
from fieldfold.link.session import Link

log = logging.getLogger(__name__)
MAX_WAITING = 10_000
_UP_AGAIN_S = 0.5
"""How often a link that is down is looked at again, should its coming up have been missed."""


class Outgoing:
    """Sends through `link` in a thread of its own, as fast as the link's window and pace allow."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._retained: collections.OrderedDict[str, bytes] = collections.OrderedDict()
        self._ordered: collections.deque[tuple[str, bytes]] = collections.deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._sending = False
        self._held = False
        self._stopping = False
        self.bytes_sent = 0
        self._thread = threading.Thread(target=self._run, name="outgoing", daemon=True)
        self._thread.start()

    def retain(self, topic: str, payload: bytes) -> None:
        """Publishes a retained message; one for the same topic that has not left yet is replaced."""
        with self._changed:
            self._retained[topic] = payload
            self._changed.notify_all()

    def send(self, topic: str, payload: bytes) -> None:
        """Publishes a message behind all that were sent before."""
        with self._changed:
            self._ordered.append((topic, payload))
            self._changed.notify_all()

    def hold(self) -> None:
        """Sends nothing until `wake`."""
        with self._changed:
            self._held = True

    def wake(self) -> None:
        """The link came up: try again at once."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything has left; False when the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._ordered or self._retained or self._sending), timeout_s)

    def stop(self) -> None:
        """Ends the thread; what has not left is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not (self._may_send and self._link.is_up):
                    self._changed.wait(_UP_AGAIN_S if self._may_send else None)
                if self._stopping:
                    return
                retain = not self._ordered
                topic, payload = self._retained.popitem(last=False) if retain else self._ordered.popleft()
                self._sending = True
            self._publish(topic, payload, retain=retain)
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    @property
    def _may_send(self) -> bool:
        return not self._held and bool(self._ordered or self._retained)

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        try:
            self._link.publish(topic, payload, retain=retain)
        except LinkDownError:
            self._put_back(topic, payload, retain=retain)
        except LinkError as error:
            # The broker's limit fell since the message was cut; what is retained is cut anew at each connection.
            log.error("a message to %s cannot be sent: %s", topic, error)
        else:
            self.bytes_sent += len(payload)

    def _put_back(self, topic: str, payload: bytes, *, retain: bool) -> None:
        with self._changed:
            if not retain:
                self._ordered.appendleft((topic, payload))
            elif topic not in self._retained:
                self._retained[topic] = payload
                self._retained.move_to_end(topic, last=False)
