"""What this node tells of its data before there is a model: the sums that the fleet's normalisation is made from."""

from __future__ import annotations

import time

from fieldfold.link.outgoing import Outgoing
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.trust.signing import Signer
from fieldfold.wire.messages import Statistics, write
from node_app.download import Download
from node_app.facts import Facts

REPEAT_EVERY_S = 15.0
"""A broker that is killed loses what it has not saved yet, and without statistics there would never be a model."""


class OwnStatistics:
    """Told when the data has been read, and again until a model is here, which shows that they were heard.

    Attributes:
        sums: of the newest data; None before it was read.
    """

    def __init__(self, topic: str, outgoing: Outgoing, signer: Signer, facts: Facts, download: Download) -> None:
        self._topic, self._outgoing, self._signer = topic, outgoing, signer
        self._facts, self._download = facts, download
        self._told_at = 0.0
        self.sums: FeatureSums | None = None

    def tell(self, sums: FeatureSums) -> None:
        """The data has been read."""
        self.sums = sums
        self.repeat()

    def tick(self, now: float) -> None:
        """Repeats them now and then."""
        if now - self._told_at > REPEAT_EVERY_S:
            self.repeat()

    def repeat(self, *, asked: bool = False) -> None:
        """Says them where they may not have been heard; `asked` says that they were not."""
        bundle, follower = self._download.bundle, self._download.follower
        waiting = follower is not None and follower.model is None
        if self.sums is None or bundle is None or not (waiting or asked):
            return
        self._told_at = time.monotonic()
        message = Statistics(
            issued=self._facts.rise("statistics"),
            task=bundle.digest,
            count=self.sums.count,
            total=self.sums.total,
            total_of_squares=self.sums.total_of_squares,
        )
        self._outgoing.send(self._topic, self._signer.message(self._topic, write(message)))
