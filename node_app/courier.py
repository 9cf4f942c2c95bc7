"""Carries updates from the outbox to the broker, again and again until the aggregator's receipt has come."""

from __future__ import annotations

import logging
import threading
import time

from fieldfold.errors import LinkDownError, LinkError, StoreError
from fieldfold.link.session import Delivery, Link
from fieldfold.wire.chunks import chunk_size, cut
from node_app.store import Parcel, Store

log = logging.getLogger(__name__)
FIRST_PATIENCE_S = 20.0
LONGEST_PATIENCE_S = 600.0
"""An update without a receipt is sent again: the broker's acknowledgement does not mean that it arrived."""
_DELIVERY_S = 60.0
_LOOK_S = 5.0


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


class Courier:
    """One thread; `wake` it when the outbox, or the link, has changed."""

    def __init__(self, store: Store, link: Link, topic: str) -> None:
        self._store, self._link, self._topic = store, link, topic
        self._changed = threading.Condition()
        self._attempts: dict[str, Attempt] = {}
        self._stopping = False
        self._news = 0
        self.bytes_sent = 0
        self.waiting = store.num_waiting()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begins carrying."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what was not delivered stays in the outbox."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)

    @property
    def is_alive(self) -> bool:
        """Whether it is at work; it ends only when it is stopped, or by a fault of the program."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Looks into the outbox at once."""
        with self._changed:
            self._news += 1
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            seen = self._news
            try:
                parcel = self._next()
            except StoreError as error:
                log.error("the outbox cannot be read: %s", error)
                parcel = None
            if parcel is not None:
                self._carry(parcel, self._attempts[parcel.digest])
                continue
            with self._changed:
                while not self._stopping and self._news == seen:
                    if not self._changed.wait(_LOOK_S if self.waiting else None):
                        break

    def _next(self) -> Parcel | None:
        """The oldest update whose time has come."""
        parcels = self._store.parcels()
        self.waiting = len(parcels)
        self._attempts = {parcel.digest: self._attempts.get(parcel.digest, Attempt()) for parcel in parcels}
        if not self._link.is_up or self._stopping:
            return None
        now = time.monotonic()
        return next((parcel for parcel in parcels if self._attempts[parcel.digest].next_at <= now), None)

    def _carry(self, parcel: Parcel, attempt: Attempt) -> None:
        attempt.cut_as(chunk_size(self._link.limits.message_bytes))
        under_way: dict[int, Delivery] = {}
        try:
            for index, message in enumerate(cut(parcel.body, attempt.chunk_bytes)):
                if self._stopping:
                    return
                if index not in attempt.delivered:
                    under_way[index] = self._link.publish(self._topic, message)
                    self.bytes_sent += len(message)
        except LinkDownError:
            log.info("the link went down while update %d was under way", parcel.sequence)
        except LinkError as error:
            log.error("update %d cannot be sent: %s", parcel.sequence, error)
            attempt.complete(time.monotonic())
            return
        attempt.delivered |= {index for index, delivery in under_way.items() if delivery.wait(_DELIVERY_S)}
        if len(attempt.delivered) * attempt.chunk_bytes >= len(parcel.body):
            attempt.complete(time.monotonic())
        else:
            attempt.next_at = time.monotonic() + 1.0
