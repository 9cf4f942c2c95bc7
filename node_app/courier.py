"""Carries updates from the outbox to the broker, again and again until the aggregator's receipt has come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fieldfold.errors import LinkDownError, LinkError, StoreError
from fieldfold.link.session import Delivery, Link
from fieldfold.wire.chunks import chunk_size, cut
from node_app.loop import Loop
from node_app.store import Parcel, Store

log = logging.getLogger(__name__)
FIRST_PATIENCE_S = 20.0
LONGEST_PATIENCE_S = 600.0
"""An update without a receipt is sent again: the broker's acknowledgement does not mean that it arrived."""
HOLD_S = 30.0
"""What waited for the link is held back this long at most, so that a run from a newer version can replace it."""
STALLED_AFTER_S = 180.0
_DELIVERY_S = 60.0
_LOOK_S = 5.0
_HELD_LOOK_S = 0.25


class Attempt:
    """How far an update has got: chunks that the broker has, and when it is to be tried again."""

    def __init__(self) -> None:
        self.chunk_bytes = 0
        self.delivered: set[int] = set()
        self.patience_s = FIRST_PATIENCE_S
        self.next_at = 0.0

    def cut_as(self, chunk_bytes: int) -> None:
        """What the broker has of an update that was cut differently is of no use."""
        if chunk_bytes != self.chunk_bytes:
            self.chunk_bytes = chunk_bytes
            self.delivered.clear()

    def complete(self, now: float) -> None:
        """Everything is with the broker: give the receipt its time, then begin anew."""
        self.next_at = now + self.patience_s
        self.patience_s = min(2 * self.patience_s, LONGEST_PATIENCE_S)
        self.delivered.clear()


class Courier(Loop):
    """`wake` it when the outbox, or the link, has changed; what was not delivered at the end stays in the outbox.

    Args:
        store: holds the outbox.
        link: carries it.
        topic: where to.
        seal: signs an update with this SHA-256 (hex).
        is_fresh: whether an update that waited while there was no link is still worth sending, as far as is known.

    Attributes:
        bytes_sent: of updates, repeated ones included.
        round_trip_s: from the newest chunk's departure to the broker's acknowledgement; None before the first.
        waiting: updates in the outbox.
    """

    def __init__(
        self,
        store: Store,
        link: Link,
        topic: str,
        seal: Callable[[str], bytes],
        is_fresh: Callable[[Parcel], bool] = lambda _: True,
    ) -> None:
        super().__init__("courier", STALLED_AFTER_S)
        self._store, self._link, self._topic, self._seal, self._is_fresh = store, link, topic, seal, is_fresh
        self._attempts: dict[str, Attempt] = {}
        self._was_down = True
        self._held: set[int] = set()
        self._held_until = 0.0
        self._is_carrying = False
        self.bytes_sent = 0
        self.round_trip_s: float | None = None
        self.waiting = store.num_waiting()

    def carried(self, digest: str) -> tuple[int, int]:
        """Chunks of an update that the broker has in this attempt, and the size of a chunk in bytes."""
        attempt = self._attempts.get(digest, Attempt())
        return len(attempt.delivered), attempt.chunk_bytes

    def offer(self, parcel: Parcel) -> None:
        """A new update. Where nothing else is on its way it leaves at once, and no run that begins takes it back."""
        if self._link.is_up and not self._is_carrying:
            self._store.depart(parcel.sequence)
        self.wake()

    def _work(self) -> None:
        try:
            parcel = self._next()
        except StoreError as error:
            log.error("the outbox cannot be used: %s", error)
            parcel = None
        if parcel is not None:
            self._is_carrying = True
            self._carry(parcel, self._attempts[parcel.digest])
            self._is_carrying = False
        elif self.waiting:
            self._rest(_HELD_LOOK_S if self._held else _LOOK_S)
        else:
            self._rest(None)

    def _next(self) -> Parcel | None:
        """The oldest update whose time has come; it counts as sent from now on."""
        parcels = self._store.parcels()
        self.waiting = len(parcels)
        self._attempts = {parcel.digest: self._attempts.get(parcel.digest, Attempt()) for parcel in parcels}
        now = time.monotonic()
        if not self._link.is_up:
            self._was_down = True
        elif self._was_down:
            self._was_down, self._held_until = False, now + HOLD_S
            self._held = {parcel.sequence for parcel in parcels if not parcel.has_left}
        self._held = {parcel.sequence for parcel in parcels if self._is_held(parcel, now)}
        if self._was_down or self._stopping:
            return None
        for parcel in parcels:
            due = self._attempts[parcel.digest].next_at <= now and parcel.sequence not in self._held
            if due and (parcel.has_left or self._store.depart(parcel.sequence)):
                return parcel
        return None

    def _is_held(self, parcel: Parcel, now: float) -> bool:
        return parcel.sequence in self._held and now < self._held_until and not self._is_fresh(parcel)

    def _carry(self, parcel: Parcel, attempt: Attempt) -> None:
        attempt.cut_as(chunk_size(self._link.limits.message_bytes))
        under_way: dict[int, Delivery] = {}
        left_at = 0.0
        try:
            for index, message in enumerate(cut(parcel.body, attempt.chunk_bytes, self._seal(parcel.digest))):
                if self._stopping:
                    return
                self.pulse.beat()
                if index not in attempt.delivered:
                    left_at = time.monotonic()
                    under_way[index] = self._link.publish(self._topic, message)
                    self.bytes_sent += len(message)
        except LinkDownError:
            log.info("the link went down while update %d was under way", parcel.sequence)
        except LinkError as error:
            log.error("update %d cannot be sent: %s", parcel.sequence, error)
            attempt.complete(time.monotonic())
            return
        for index, delivery in under_way.items():
            self.pulse.beat()
            if delivery.wait(_DELIVERY_S):
                attempt.delivered.add(index)
                self.round_trip_s = time.monotonic() - left_at
        if len(attempt.delivered) * attempt.chunk_bytes >= len(parcel.body):
            attempt.complete(time.monotonic())
        else:
            attempt.next_at = time.monotonic() + 1.0
