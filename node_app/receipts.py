"""What follows from the aggregator's answer to an update."""

from __future__ import annotations

import logging

from fieldfold.wire.messages import Receipt
from node_app.courier import Courier
from node_app.download import Download
from node_app.learner import Learner
from node_app.own_statistics import OwnStatistics
from node_app.store import Store

log = logging.getLogger(__name__)


class Receipts:
    """Settles updates, and lets everybody know whom it concerns.

    Attributes:
        newest: what the newest said, for people.
    """

    def __init__(
        self, store: Store, courier: Courier, learner: Learner, download: Download, statistics: OwnStatistics
    ) -> None:
        self._store, self._courier, self._learner = store, courier, learner
        self._download, self._statistics = download, statistics
        self.newest = ""

    def take(self, receipt: Receipt) -> None:
        """One has come; one that was heard before changes nothing."""
        if receipt.decision == "deferred":
            self.newest = f"update {receipt.sequence} deferred: {receipt.reason}"
            log.warning("%s; it is sent again later", self.newest)
            return
        if not self._store.settle(receipt):
            return
        word = f"update {receipt.sequence} {receipt.decision}"
        self.newest = f"{word}: {receipt.reason}" if receipt.reason else word
        if receipt.code == "sequence_used":
            log.info("this store is younger than the node's name: its numbering goes on at %d", receipt.next_sequence)
        elif receipt.decision == "rejected":
            log.warning("%s%s", self.newest, f"; {receipt.hint}" if receipt.hint else "")
            self._learner.rejected()
            self._look_again(receipt)
        elif self._download.follower is not None:
            self._download.follower.heard_of(receipt.version)
        self._courier.wake()
        self._learner.wake()

    def _look_again(self, receipt: Receipt) -> None:
        """The aggregator works on something else than this node."""
        if receipt.code == "ahead":
            self._download.start_over()
        elif receipt.code in ("other_run", "no_model"):
            self._download.look()
        if receipt.code == "no_model":
            self._statistics.repeat(asked=True)
