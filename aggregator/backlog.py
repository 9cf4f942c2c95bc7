"""Messages that the broker has not been told of yet: into the ledger together, then acknowledged and answered."""

from __future__ import annotations

import logging

import msgspec

from aggregator.federation import Federation
from aggregator.intake.complaints import Complaints
from aggregator.intake.signers import Signers
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision
from aggregator.reception import Answer, Reception
from aggregator.status import Tally
from fieldfold.errors import DataError, StoreError, WireError
from fieldfold.link.outgoing import Outgoing
from fieldfold.link.session import Link, Received
from fieldfold.trust.signing import Signer
from fieldfold.wire.messages import NodePresence, read, write
from fieldfold.wire.topics import Topics

log = logging.getLogger(__name__)


class _Reading(msgspec.Struct, frozen=True):
    """What a message turned out to be; it counts once the transaction is on disk.

    Attributes:
        node: the sender; empty when not even that is known.
        update_bytes: its size if it is part of an update.
        malformed: why it is no message of ours.
    """

    node: str = ""
    update_bytes: int = 0
    malformed: str = ""
    answer: Answer | None = None


class Backlog:
    """What has come and is not on disk. Where it cannot be written it stays the broker's, and is tried again.

    Args:
        ledger: written to.
        reception: takes updates.
        signers: know who has signed what.
        federation: takes statistics.
        tally: counts.
        link: where the messages came from.
        outgoing: takes the receipts.
        signer: signs them.
        topics: the federation's.
    """

    def __init__(  # noqa: PLR0913 - it is where all of them meet
        self,
        ledger: Ledger,
        reception: Reception,
        signers: Signers,
        federation: Federation,
        tally: Tally,
        *,
        link: Link,
        outgoing: Outgoing,
        signer: Signer,
        topics: Topics,
    ) -> None:
        self._ledger, self._reception, self._federation, self._tally = ledger, reception, federation, tally
        self._signers, self._signer = signers, signer
        self._link, self._outgoing, self._topics = link, outgoing, topics
        self._complaints = Complaints()
        self._messages: list[Received] = []
        self._failed = False

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Received) -> None:
        """Keeps a message for the next `take`."""
        self._messages.append(message)

    def forget(self) -> None:
        """The connection was lost: none of them was acknowledged, so all come again."""
        self._messages.clear()

    def take(self) -> list[Decision]:
        """Writes all down in one transaction, acknowledges and answers; gives the updates that are to be folded.

        Raises:
            StoreError: when they cannot be written; none counts, and all of them wait.
        """
        try:
            with self._ledger.transaction():
                if self._failed:
                    self._signers.restore()
                    self._reception.restore()
                readings = [self._read(message) for message in self._messages]
                self._reception.write()
        except StoreError:
            self._failed = True
            raise
        self._failed = False
        for message in self._messages:
            self._link.ack(message)
        self._messages = []
        return [decision for reading in readings if (decision := self._conclude(reading)) is not None]

    def _read(self, message: Received) -> _Reading:
        """Takes one message; what is of no use is logged, and acknowledged all the same."""
        node = ""
        update_bytes = 0
        try:
            node = self._topics.node_of(message.topic)
            if message.topic == self._topics.update(node):
                update_bytes = len(message.payload)
                answer = self._reception.take(node, message.payload, self._federation.model)
                return _Reading(node, update_bytes, answer=answer)
            if message.topic == self._topics.statistics(node):
                self._federation.take_statistics(node, self._signers.statistics(node, message.payload))
            elif message.topic == self._topics.key(node) and message.payload:
                self._signers.learn(node, message.payload)
            elif message.topic == self._topics.status(node) and message.payload:
                self._tally.node(node).presence = read(NodePresence, message.payload)
        except WireError as error:
            return _Reading(node, update_bytes, malformed=f"{message.topic[:200]}: {error}")
        except DataError as error:
            log.warning("%s", error)
        return _Reading(node)

    def _conclude(self, reading: _Reading) -> Decision | None:
        """Counts what is on disk now, and answers it; gives the update if it was accepted just now."""
        if reading.update_bytes:
            self._tally.heard(reading.node, reading.update_bytes)
        if reading.malformed:
            self._tally.refused(reading.node, reading.malformed)
            self._complaints.say(reading.node, f"of no use: {reading.malformed}")
        if reading.answer is None:
            return None
        decision, receipt = reading.answer.decision, reading.answer.receipt
        if receipt.decision == "deferred":
            self._tally.deferred(reading.node, receipt.reason)
        elif decision is not None:
            self._tally.decided(decision)
            if not decision.accepted:
                what = f"update {decision.sequence} of {decision.node} rejected: {decision.reason}"
                self._complaints.say(decision.node, what)
        topic = self._topics.receipt(reading.node)
        self._outgoing.send(topic, self._signer.message(topic, write(receipt)))
        return decision if decision is not None and decision.accepted else None
