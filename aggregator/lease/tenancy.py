"""The two sessions of an aggregator: one looks, the other begins, and counts, while nobody outranks it."""

from __future__ import annotations

import logging
import queue
import secrets
import socket
import time
from typing import Any

import msgspec

from aggregator.lease.claim import OFFLINE, Tenure, term_to_take
from aggregator.lease.lookout import Looked, Lookout
from aggregator.ledger.ledger import Ledger
from fieldfold.errors import StoreError, WireError
from fieldfold.link.session import Connected, Disconnected, Link, Received, Will
from fieldfold.wire.messages import AggregatorPresence, Lease, read, write

log = logging.getLogger(__name__)
STORE_RETRY_S = 2.0


class Tenancy:
    """Used by the service's thread.

    Args:
        link: the session that bears the federation's name; started when nobody else is at work.
        lookout: the one that looks first, under another name.
        topic: the aggregator's status, retained and left as the will.
        take_over: begin although another aggregator is at work, which then ends.
    """

    def __init__(self, link: Link, lookout: Link, topic: str, ledger: Ledger, *, take_over: bool) -> None:
        self._link, self._topic, self._ledger, self._take_over = link, topic, ledger, take_over
        inbox: queue.SimpleQueue[Any] = link.events
        self._lookout = Lookout(lookout, topic, inbox.put)
        self._looked: Looked | None = None
        self._retry_at = 0.0
        self._tenure: Tenure | None = None
        self._misread = False

    def start(self) -> None:
        """Looks whether somebody is at work; what comes of it is an event of the link.

        Raises:
            LinkError: when the configuration cannot work.
        """
        self._link.subscribe(self._topic, queued=False)
        self._lookout.start()

    def stop(self) -> None:
        """Ends the looking."""
        self._lookout.stop()

    @property
    def is_ours(self) -> bool:
        """Whether updates may be taken and versions published now."""
        return self._tenure is not None and self._tenure.is_sure

    @property
    def term(self) -> int:
        """The present one; 0 while the federation is not known to be ours."""
        return self._tenure.lease.term if self._tenure is not None and self._tenure.is_sure else 0

    def react(self, event: object, now: float) -> bool:
        """Takes an event; whether it was meant for nobody else.

        Raises:
            LeaseError: when another aggregator keeps the federation.
        """
        if isinstance(event, Looked):
            self._looked = event
            return True
        if isinstance(event, Received) and event.topic == self._topic:
            self._hear(event)
            return True
        if self._tenure is not None and isinstance(event, Disconnected):
            self._tenure.disconnected()
        elif self._tenure is not None and isinstance(event, Connected):
            # The broker may have kept our session; what it retains comes only to a new subscription.
            self._link.unsubscribe(self._topic)
            self._link.subscribe(self._topic, queued=False)
            self._tenure.connected(now)
        return False

    def _hear(self, message: Received) -> None:
        self._link.ack(message)
        if self._tenure is None or not message.payload:
            return
        try:
            self._misread |= self._tenure.heard(read(AggregatorPresence, message.payload))
        except WireError as error:
            log.warning("of no use: %s: %s", message.topic, error)

    def tick(self, now: float) -> bool:
        """Goes on where something was waited for; whether the federation became ours just now.

        Raises:
            LeaseError: when another aggregator is at work.
        """
        if self._looked is not None and now >= self._retry_at:
            self._begin(self._looked.found)
        return self._tenure is not None and self._tenure.tick(now)

    def _begin(self, found: AggregatorPresence | None) -> None:
        """Takes the session that bears the federation's name, when the term is on the disk."""
        term = term_to_take(found, self._ledger.name, self._ledger.term, take_over=self._take_over)
        try:
            with self._ledger.transaction():
                self._ledger.put_term(term)
        except StoreError as error:
            self._retry_at = time.monotonic() + STORE_RETRY_S
            log.error("it cannot begin yet: %s", error)
            return
        self._looked = None
        holder, host = secrets.token_hex(8), socket.gethostname()
        self._tenure = Tenure(Lease(ledger=self._ledger.name, term=term, holder=holder, host=host))
        self._link.will = Will(*self.farewell())
        self._link.start()

    def misread(self) -> bool:
        """Whether, since this was asked last, the status topic came to say something else than is the case."""
        misread, self._misread = self._misread, False
        return misread

    def sign(self, presence: AggregatorPresence) -> bytes:
        """The message for the status topic.

        Raises:
            RuntimeError: before a term has begun.
        """
        if self._tenure is None:
            raise RuntimeError("no term has begun")
        return write(msgspec.structs.replace(presence, lease=self._tenure.lease))

    def farewell(self) -> tuple[str, bytes]:
        """Topic and message that say that nobody is at work any more."""
        return self._topic, self.sign(AggregatorPresence(state=OFFLINE))
