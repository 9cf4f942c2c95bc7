"""What happens to a message from a node: put together, verified, written down. Nothing is folded or counted here."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import cast

import msgspec

from aggregator.intake.allowance import Allowance
from aggregator.intake.desk import Desk, Whole
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision
from aggregator.model import GlobalModel
from aggregator.verify.update import Expectation, Rejected, Verdict, VerifyConfig, verify
from fieldfold.errors import WireError
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import MAX_COUNTER, Chunk, ClientUpdate, Receipt, RejectionCode, unpack

MAX_BYTES_PER_PARAMETER = 5
SMALLEST_LIMIT_BYTES = 1 << 16
SMALLEST_CHUNK_BYTES, FEW_CHUNKS = 512, 64
"""An update is taken in no more chunks than have this size, or in few: each takes some 200 bytes beside its data."""
UNFINISHED_KEPT_S = 3600.0
"""How long the chunks of an update wait for the next one. A node that was away longer sends all of them again."""


class Answer(msgspec.Struct, frozen=True):
    """What follows once the transaction is on disk: a receipt, and the decision if it was not taken before."""

    node: str
    receipt: Receipt
    decision: Decision | None = None


class Unfinished:
    """One update of which some chunks are still to come.

    Attributes:
        heard_s: when the newest came.
        fresh: (position, message) of those that are not on disk yet.
        is_on_disk: whether others are.
    """

    def __init__(self, *, is_on_disk: bool = False) -> None:
        self.heard_s = 0.0
        self.fresh: list[tuple[int, bytes]] = []
        self.is_on_disk = is_on_disk


class Reception:
    """Takes update messages; every method runs within one of the ledger's transactions, and holds if that holds.

    Args:
        ledger: written to.
        limits: of what is taken.
        max_update_bytes: largest update that is taken.
        check: raises a SignatureError unless a node sent the update with this SHA-256 (hex) under this seal.
        clock: monotonic, seconds.

    Attributes:
        excluded: node -> who excluded it; as the ledger says.

    Before the transaction ends `write` is called; when it was rolled back, `restore` in the next one.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: VerifyConfig,
        max_update_bytes: int,
        check: Callable[[str, str, bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self.excluded = ledger.excluded()
        self._limits = limits
        self._max_update_bytes = max_update_bytes
        self._check = check
        self._clock = clock
        self._desk = Desk()
        self._allowance = Allowance(limits.max_per_minute)
        self._unfinished: collections.OrderedDict[tuple[str, bytes], Unfinished] = collections.OrderedDict()

    def restore(self) -> None:
        """Takes up the pieces that are on disk; drops those that are not taken any more (the limit was lowered)."""
        self._desk = Desk()
        self._unfinished.clear()
        for node, digest, message in self._ledger.chunks():
            self._keep(node, digest, is_on_disk=True)
            try:
                over = self._desk.take(node, unpack(Chunk, message), self._max_update_bytes).over
            except WireError:
                over = (digest,)
            for name in over:
                self._drop(node, name)

    def expire(self) -> None:
        """Gives up updates of which nothing has come for long."""
        before_s = self._clock() - UNFINISHED_KEPT_S
        while self._unfinished:
            (node, digest), oldest = next(iter(self._unfinished.items()))
            if oldest.heard_s > before_s:
                return
            self._desk.give_up(node, digest)
            self._drop(node, digest)

    def write(self) -> None:
        """Puts on disk what came in this transaction of updates that are not whole at its end: the others never."""
        for (node, digest), unfinished in reversed(self._unfinished.items()):
            if not unfinished.fresh:
                return
            for position, message in unfinished.fresh:
                self._ledger.put_chunk(node, digest, position, message)
            unfinished.fresh, unfinished.is_on_disk = [], True

    def _keep(self, node: str, digest: bytes, *, is_on_disk: bool = False) -> Unfinished:
        """The update, as the one that was heard last."""
        unfinished = self._unfinished.setdefault((node, digest), Unfinished(is_on_disk=is_on_disk))
        self._unfinished.move_to_end((node, digest))
        unfinished.heard_s = self._clock()
        return unfinished

    def _drop(self, node: str, digest: bytes) -> None:
        """Forgets the chunks of an update that is whole, damaged or given up."""
        unfinished = self._unfinished.pop((node, digest), None)
        if unfinished is not None and unfinished.is_on_disk:
            self._ledger.drop_chunks(node, digest)

    def take(self, node: str, message: bytes, model: GlobalModel | None) -> Answer | None:
        """One message from `node`'s update topic; None while its update is not whole.

        Raises:
            WireError: when it cannot even be answered, since it bears no sequence number, or is not the node's.
        """
        chunk = unpack(Chunk, message)
        if not self._allowance.take(node, chunk.num_chunks, self._clock()):
            return self._defer(node, chunk, model)
        most_bytes = self._most_bytes(model)
        if chunk.num_chunks > max(FEW_CHUNKS, most_bytes // SMALLEST_CHUNK_BYTES):
            raise WireError(f"an update in {chunk.num_chunks} chunks of {chunk.chunk_bytes} bytes")
        outcome = self._desk.take(node, chunk, most_bytes)
        for digest in outcome.over:
            self._drop(node, digest)
        if outcome.keep:
            self._keep(node, chunk.digest).fresh.append((chunk.index, message))
        if outcome.malformed:
            raise WireError(outcome.malformed)
        if outcome.whole is None:
            return None
        self._check(node, outcome.whole.digest, outcome.whole.seal)
        return self._decide(node, outcome.whole, model)

    def _most_bytes(self, model: GlobalModel | None) -> int:
        """An honest update is hardly larger than the model without compression."""
        if model is None:
            return self._max_update_bytes
        return min(self._max_update_bytes, max(SMALLEST_LIMIT_BYTES, MAX_BYTES_PER_PARAMETER * model.num_params))

    def _defer(self, node: str, chunk: Chunk, model: GlobalModel | None) -> Answer | None:
        """Passes over what is too much; a whole update at least is told so."""
        if chunk.num_chunks > 1:
            return None
        allowed = self._limits.max_per_minute
        receipt = Receipt(
            sequence=unpack(ClientUpdate, chunk.data).sequence,
            update=object_digest(chunk.data),
            decision="deferred",
            code="too_many",
            reason=f"more than {allowed:g} updates a minute",
            hint="the node sends it again later; see verify.max_per_minute",
            version=model.version if model else 0,
        )
        return Answer(node, receipt)

    def _decide(self, node: str, whole: Whole, model: GlobalModel | None) -> Answer:
        update = whole.update
        before = self._ledger.decision(node, update.sequence)
        if before is not None:
            return self._again(node, whole, before, model)
        if update.sequence <= self._ledger.forgotten_up_to(node):
            return self._again(node, whole, _forgotten(whole), model)
        decision = _decision(node, whole, self._verify(whole, node, model), model)
        decision = msgspec.structs.replace(decision, id=self._ledger.put_decision(decision))
        return Answer(node, self._receipt(decision, model), decision)

    def _verify(self, whole: Whole, node: str, model: GlobalModel | None) -> Verdict:
        if node in self.excluded:
            return Rejected(
                f"{node} is excluded, by {self.excluded[node]}", "ask whoever runs the aggregator", "excluded"
            )
        if model is None:
            return Rejected("the federation has no model yet", "the node waits for one by itself", "no_model")
        expected = Expectation(
            run=bytes.fromhex(model.run),
            num_params=model.num_params,
            num_classes=len(model.bundle.manifest.data.scored_classes),
            version=model.version,
            max_staleness=model.max_staleness,
            typical_norm=model.typical_norm,
        )
        return verify(whole.update, node, expected, self._limits)

    def _again(self, node: str, whole: Whole, before: Decision, model: GlobalModel | None) -> Answer:
        """An update that was decided on already: the same receipt once more, or a word about a reused number."""
        if before.digest == whole.digest:
            return Answer(node, self._receipt(before, model))
        clash = msgspec.structs.replace(
            before,
            digest=whole.digest,
            accepted=False,
            code="sequence_used",
            reason="the sequence number was used before, for another update",
            hint="go on from next_sequence",
        )
        return Answer(node, self._receipt(clash, model))

    def _receipt(self, decision: Decision, model: GlobalModel | None) -> Receipt:
        return Receipt(
            sequence=decision.sequence,
            update=decision.digest,
            decision="accepted" if decision.accepted else "rejected",
            code=None if decision.accepted else cast("RejectionCode", decision.code),
            reason=decision.reason[:500],
            hint=decision.hint[:500],
            staleness=decision.staleness,
            version=model.version if model else 0,
            next_sequence=min(self._ledger.next_sequence(decision.node), MAX_COUNTER),
        )


def _forgotten(whole: Whole) -> Decision:
    """Stands for a decision that is not kept any more: it was taken, and what it was nobody knows."""
    update = whole.update
    return Decision("", update.node, update.sequence, "", update.base_version, 0, accepted=False, size_bytes=0)


def _decision(node: str, whole: Whole, verdict: Verdict, model: GlobalModel | None) -> Decision:
    """The row for the ledger; the body of a rejected update is not kept."""
    update = whole.update
    row = Decision(
        task=model.task if model else "",
        num_params=model.num_params if model else 0,
        node=node,
        sequence=update.sequence,
        digest=whole.digest,
        base_version=update.base_version,
        num_examples=0,
        accepted=False,
        size_bytes=len(whole.body),
    )
    if isinstance(verdict, Rejected):
        return msgspec.structs.replace(row, code=verdict.code, reason=verdict.reason, hint=verdict.hint)
    score, num_scored = update.base_score
    return msgspec.structs.replace(
        row,
        accepted=True,
        num_examples=update.num_examples,
        staleness=verdict.staleness,
        norm=verdict.norm,
        score=score if num_scored else None,
        class_scores=update.class_scores,
        body=whole.body,
    )
