"""Numbers that only rise, over restarts too, so that who has heard a newer word of the aggregator takes no older."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aggregator.ledger.ledger import Ledger
from fieldfold.errors import StoreError

log = logging.getLogger(__name__)
AHEAD_MS = 10_000
"""A number on the disk is this far ahead of what was given out, so that it need not be written for each."""


class Issuer:
    """Milliseconds since 1970 by this machine's clock, and more where that goes back or another one was ahead.

    Args:
        ledger: remembers above which number nothing was given out.
        clock: seconds since 1970.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock
        self._newest = self._written = ledger.issued

    def next(self) -> int:
        """The next number; not to be called within a transaction.

        Where it cannot be written down it counts all the same: the clock alone would have to go back besides.
        """
        number = max(self._newest + 1, int(self._clock() * 1000))
        if number > self._written:
            self._write(number + AHEAD_MS)
        self._newest = number
        return number

    def _write(self, number: int) -> None:
        try:
            with self._ledger.transaction():
                self._ledger.put_issued(number)
        except StoreError as error:
            log.warning("what was issued is known by the clock alone: %s", error)
        else:
            self._written = number
