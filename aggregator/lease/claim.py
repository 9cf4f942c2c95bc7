"""The lease on a federation: the retained status says who keeps it, and of two aggregators only one ever does.

A claim is outranked by one of a higher term. Whoever starts takes a term above all it knows of, and refuses to start
where another aggregator is at work; whoever finds itself outranked ends. So it needs no clock, and of two that come
together after a network was parted, both draw the same conclusion.
"""

from __future__ import annotations

import math

from fieldfold.errors import LeaseError
from fieldfold.wire.messages import AggregatorPresence, Lease

OFFLINE = "offline"
LOOK_S = 0.5
"""A retained message follows its subscription at once; a broker that has sent none by then has none."""


def term_to_take(found: AggregatorPresence | None, ledger: str, term: int, *, take_over: bool) -> int:
    """The term under which an aggregator may begin.

    Args:
        found: what the broker retains; None for nothing.
        ledger: the name of its ledger.
        term: the highest that was taken with this ledger.
        take_over: begin although another aggregator is at work, which then ends.

    Raises:
        LeaseError: when another aggregator is at work.
    """
    lease = found.lease if found is not None else None
    if found is None or lease is None:
        return term + 1
    is_own = lease.ledger == ledger and lease.term <= term
    if found.state != OFFLINE and not is_own and not take_over:
        raise LeaseError(
            f"another aggregator keeps this federation: on {lease.host}, ledger {lease.ledger}, term {lease.term}",
            "stop that one first; where it is dead and the broker has not noticed, start with --take-over",
        )
    return max(term, lease.term) + 1


def outranks(one: Lease, other: Lease) -> bool:
    """Whether the first claim is the higher one; of two different ones, exactly one is."""
    return (one.term, one.holder) > (other.term, other.holder)


class Tenure:
    """Whether a running aggregator may take updates and publish.

    It may from when it has seen, after each connection anew, that nobody outranks it.

    Args:
        lease: its own claim.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.is_sure = False
        self._sure_at = math.inf

    def connected(self, now: float) -> None:
        """The retained status is on its way, if there is one."""
        self.is_sure, self._sure_at = False, now + LOOK_S

    def disconnected(self) -> None:
        """From now on somebody else may begin."""
        self.is_sure, self._sure_at = False, math.inf

    def heard(self, presence: AggregatorPresence) -> bool:
        """Takes what stands on the status topic; whether it is to be written anew, because it is not ours.

        Raises:
            LeaseError: when somebody outranks us.
        """
        lease = presence.lease
        if lease is not None and outranks(lease, self.lease):
            raise LeaseError(
                f"another aggregator took over: on {lease.host}, ledger {lease.ledger}, term {lease.term}",
                "this one has ended so that only one folds; start it with --take-over if it is the right one",
            )
        self._sure_at = min(self._sure_at, 0.0)
        return lease != self.lease or presence.state == OFFLINE

    def tick(self, now: float) -> bool:
        """Whether it became sure just now."""
        became = not self.is_sure and now >= self._sure_at
        self.is_sure |= became
        return became
