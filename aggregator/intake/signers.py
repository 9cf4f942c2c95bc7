"""Which key each node signs with, as its certificate says; what is signed with another is not taken."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

import msgspec
from cryptography import x509

from aggregator.ledger.ledger import Ledger
from fieldfold.errors import SignatureError
from fieldfold.trust.credentials import Standing, examine
from fieldfold.trust.signing import Verifier
from fieldfold.wire.messages import Statistics, read
from fieldfold.wire.topics import Topics

log = logging.getLogger(__name__)


class Signers:
    """The nodes' keys; what changes them runs within one of the ledger's transactions, and holds if that holds.

    Args:
        ledger: keeps them over a restart.
        topics: the federation's.
        authorities: who certifies nodes.
    """

    def __init__(self, ledger: Ledger, topics: Topics, authorities: Sequence[x509.Certificate]) -> None:
        self._ledger, self._topics, self._authorities = ledger, topics, authorities
        self.restore()

    def restore(self) -> None:
        """Goes back to what is on disk, after a transaction that was rolled back."""
        kept = self._ledger.signers().items()
        self._known = {node: msgspec.msgpack.decode(standing, type=Standing) for node, standing in kept}
        self._shown: dict[str, bytes] = {}

    def learn(self, node: str, payload: bytes) -> None:
        """Takes what came on `node`'s key topic.

        Raises:
            SignatureError: when it is not certified for this node, or was replaced since.
        """
        if self._shown.get(node) == payload:
            return
        topic = self._topics.key(node)
        former = self._known.get(node)
        now = dt.datetime.now(dt.UTC)
        standing = examine(payload, topic, node, self._authorities, now).newest(former)
        if former is not None and standing.public_key != former.public_key:
            log.warning("%s signs with another key from now on, and its certificate says so", node)
        self._shown[node], self._known[node] = payload, standing
        self._ledger.put_signer(node, msgspec.msgpack.encode(standing))

    def check(self, node: str, digest: str, seal: bytes) -> None:
        """Whether `node` sent the update with this SHA-256 (hex).

        Raises:
            SignatureError: when not.
        """
        self._verifier(node).check(self._topics.update(node), digest, seal)

    def statistics(self, node: str, payload: bytes) -> Statistics:
        """What came on `node`'s statistics topic.

        Raises:
            WireError: when it is none, or `node` did not say it.
        """
        return read(Statistics, self._verifier(node).open(self._topics.statistics(node), payload))

    def _verifier(self, node: str) -> Verifier:
        standing = self._known.get(node)
        if standing is None:
            raise SignatureError(
                f"{node} has not shown its key yet", "it does at its next connection, and sends again"
            )
        return Verifier(standing.public_key, node)
