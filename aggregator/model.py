"""The global model: a fold over the ledger, restored from its newest checkpoint and the contributions after it."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from aggregator.fold.contribution import Contribution
from aggregator.fold.methods import AnyMethod
from aggregator.fold_settings import FoldSettings, in_force
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Checkpoint, Decision, Stretch, TurnBack, VersionRecord
from aggregator.past import released
from aggregator.release.model import SNAPSHOT_PROFILE, advance
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import Vector, digest, from_bytes, view_bytes
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ClientUpdate, ModelDelta, unpack

log = logging.getLogger(__name__)
NORMS_REMEMBERED, NORMS_OF_A_NODE = 64, 4
PROGRESS_EVERY_S = 5.0
PARAMS_BETWEEN_CHECKPOINTS = 2_500_000_000
"""Decoding and adding so many parameters takes about three seconds of a core."""
PARAMS_OF_OVERHEAD = 250_000
"""What a contribution costs besides, counted in parameters."""
CONTRIBUTIONS_OF_A_VERSION = 10
"""To compute, compare and write a version takes as long as to fold so many contributions."""
VERSIONS_BETWEEN_CHECKPOINTS = 100
"""So that the past of a small model can be given up, or taken up again, in pieces that are not too long."""


class GlobalModel:
    """Exact and released parameters of one task, moved by contributions and by nothing else.

    Attributes:
        run: names this model's history, in hex; random, drawn when it began.
        version: the newest released version.
        digest: of the released parameters at that version.
        released: what every node holds at that version (float32, num_params).
        exact: the aggregator's own model, which the released one follows.
        contribution: the last contribution in them.
    """

    def __init__(
        self, bundle: Bundle, settings: FoldSettings, checkpoint_every: int = VERSIONS_BETWEEN_CHECKPOINTS
    ) -> None:
        self.bundle = bundle
        self.task = bundle.digest
        self.run = ""
        self.settings = settings
        self.version = 0
        self.exact: Vector = bundle.initial_parameters()
        self.released: Vector = self.exact.copy()
        self.digest = digest(self.released)
        self.contribution = 0
        self._state: Any = settings.fold.init()
        self._norms: tuple[tuple[str, float], ...] = ()
        self._oldest_base = self._turned_at = 0
        self._checkpoint_every = checkpoint_every
        self._contributions_since = self._versions_since = 0

    @property
    def num_params(self) -> int:
        """Length of the parameter vector."""
        return self.released.size

    @property
    def typical_norm(self) -> float | None:
        """Median norm of the recent accepted deltas, few of each node; None before the first."""
        return statistics.median_low(norm for _, norm in self._norms) if self._norms else None

    @property
    def method(self) -> AnyMethod:
        """How contributions move the model at present."""
        return self.settings.fold

    @property
    def max_staleness(self) -> int | None:
        """Contributions staler than this are refused; None where the method has no limit.

        It is the method's own limit, or how far back deltas are kept; and nothing counts that was learned before the
        model was turned back.
        """
        own = self.version - self._oldest_base if self.method.needs_drift else self.method.max_staleness
        since_turned = self.version - self._turned_at
        if not self._turned_at:
            return own
        return since_turned if own is None else min(own, since_turned)

    def begin(self, ledger: Ledger, run: str) -> None:
        """Writes version 0, the bundle's own parameters, under the run's name. Within a transaction."""
        self.run = run
        ledger.put_run(self.task, self.run)
        ledger.put_version(VersionRecord(self.task, 0, 0, self.digest, b"", {}))
        self._note_stretch(ledger, fresh=True)
        self.checkpoint(ledger)

    def restore(self, ledger: Ledger, up_to: int | None = None) -> int:
        """Goes to the newest checkpoint and folds what came after it; returns how many contributions that were.

        What lies behind `up_to` is left as it is, unless a version was made of it.

        What is in the log is folded with the settings that the ledger names; where they are not those that this model
        was made with, a new stretch begins then. Within a transaction, because versions that a crash kept from being
        written are written now.

        Raises:
            StoreError: when there is no sound checkpoint, or a version replays otherwise than it was written.
        """
        wanted = self.settings
        point = ledger.checkpoint(self.task)
        run = ledger.run(self.task)
        if point is None or run is None:
            raise StoreError(f"{ledger.path}: there is no checkpoint of task {self.task[:16]}", "restore a backup")
        self.run = run
        self.go_to(point, ledger)
        replayed, told_at = 0, time.monotonic()
        if up_to is not None:
            up_to = max(up_to, max(ledger.version_places(self.task).values(), default=0))
        for _ in self.catch_up(ledger, up_to=up_to):
            replayed += 1
            if time.monotonic() - told_at >= PROGRESS_EVERY_S:
                told_at = time.monotonic()
                log.info("replaying: %d contributions so far, at version %d", replayed, self.version)
        if self.settings != wanted:
            self._change(wanted, ledger)
        return replayed

    def go_to(self, point: Checkpoint, ledger: Ledger) -> None:
        """Takes up the fold at a checkpoint.

        Raises:
            StoreError: when the checkpoint does not belong to the settings that the ledger names.
        """
        self.settings = FoldSettings.read(in_force(ledger, self.task, point.contribution), ledger)
        self.version = point.version
        self.contribution = point.contribution
        self.exact = from_bytes(point.exact)
        self.released = from_bytes(point.released)
        self._contributions_since = self._versions_since = 0
        self.digest = digest(self.released)
        try:
            self._state = msgspec.msgpack.decode(point.state, type=type(self.method.init()))
        except msgspec.DecodeError as error:
            method = type(self.method).__name__
            raise StoreError(
                f"{ledger.path}: the checkpoint of version {point.version} holds no state of {method}: {error}",
                "restore a backup",
            ) from None
        self._oldest_base = ledger.oldest_base(self.task)
        self._turned_at = max((each.version for each in ledger.turns_back(self.task)), default=0)
        self._norms = ledger.norms_until(self.task, point.contribution, NORMS_REMEMBERED, NORMS_OF_A_NODE)

    def enter(self, stretch: Stretch, ledger: Ledger) -> None:
        """Goes on with the settings of a stretch that begins here.

        Raises:
            StoreError: when they are not settings of this program.
        """
        self.settings = FoldSettings.read(stretch, ledger)
        if stretch.fresh:
            self._state = self.method.init()

    def _change(self, settings: FoldSettings, ledger: Ledger) -> None:
        """Begins a stretch: the same method keeps its state, another one starts anew from the exact model."""
        before = ledger.stretches(self.task)[-1]
        fresh = type(settings.fold) is not type(self.method)
        log.warning("other settings from version %d on: %s", self.version, msgspec.json.encode(settings).decode())
        if fresh:
            log.warning("another method: updates that waited for a step of the former one are in no later version")
        self.settings = settings
        if fresh:
            self._state = settings.fold.init()
        self._note_stretch(ledger, fresh=fresh or (before.fresh and before.contribution == self.contribution))
        self.checkpoint(ledger)

    def _note_stretch(self, ledger: Ledger, *, fresh: bool) -> None:
        settings = msgspec.json.encode(self.settings).decode()
        ledger.put_stretch(Stretch(self.task, self.contribution, self.version, settings, fresh))

    def catch_up(
        self, ledger: Ledger, fresh: Sequence[Decision] = (), up_to: int | None = None
    ) -> Iterator[VersionRecord | None]:
        """Folds what the ledger holds beyond the model; gives for each contribution the version it completed, if any.

        Args:
            ledger: holds the log.
            fresh: committed a moment ago; it is not read from the ledger again.
            up_to: the last place in the log that is folded; None for its end.

        Within a transaction. Vectors are replaced, never changed, so that a shallow copy of the model stays as it is.

        Raises:
            StoreError: when a version was written before, and differently.
        """
        for decision in ledger.accepted_after(self.task, self.contribution, fresh):
            if up_to is not None and decision.id > up_to:
                return
            record = self.absorb(decision, ledger)
            self.write(record, ledger)
            yield record

    def absorb(self, decision: Decision, ledger: Ledger) -> VersionRecord | None:
        """Folds one accepted contribution and gives the version that it completed, if any; writes nothing.

        Raises:
            StoreError: when the ledger lacks something that the fold needs.
        """
        if decision.body is None:
            raise StoreError(f"{ledger.path}: contribution {decision.id} has no body", "restore a backup")
        update = unpack(ClientUpdate, decision.body)
        contribution = Contribution(
            node=decision.node,
            payload=update.payload,
            # Counted anew: versions may have been released since the decision, by what came in the same batch.
            staleness=self.version - decision.base_version,
            num_examples=decision.num_examples,
            norm=decision.norm,
            trained_norm=min(update.trained_norm, decision.norm),
            loss=update.base_loss if update.base_score[1] else math.nan,
            drift=self._drift(decision.base_version, ledger) if self.method.needs_drift else None,
        )
        self._state, step = self.method.fold(self._state, contribution, self.num_params)
        self._norms = _remembered(self._norms, decision.node, decision.norm)
        self.contribution = decision.id
        self._contributions_since += 1
        if step is None:
            return None
        self._versions_since += 1
        self.exact = np.add(self.exact, step.update, out=step.update)  # the step is nobody else's
        return self._move(step.weights, SNAPSHOT_PROFILE if step.lossless else self.settings.profile)

    def turn_back(self, to_version: int, ledger: Ledger) -> VersionRecord:
        """Releases the parameters of an older version as a new one; the method's state begins anew. Writes nothing.

        Raises:
            StoreError: when that version was never released, or is not kept any more.
        """
        self.exact = released(ledger, self.bundle, to_version)
        self._state = self.method.init()
        record = self._move({}, SNAPSHOT_PROFILE)
        self._turned_at = record.version
        return record

    def write_turn_back(self, to_version: int, ledger: Ledger) -> VersionRecord:
        """The same, written down with a checkpoint. Within a transaction.

        Raises:
            StoreError: as above.
        """
        record = self.turn_back(to_version, ledger)
        ledger.put_turn_back(TurnBack(self.task, record.version, self.contribution, to_version))
        self.write(record, ledger)
        self.checkpoint(ledger)
        return record

    def _move(self, weights: Mapping[str, float], profile: str) -> VersionRecord:
        """The next version: the released parameters follow the exact ones."""
        release = advance(self.exact, self.released, self.version, self.run, profile)
        self.version, self.released, self.digest = release.version, release.released, release.digest
        return VersionRecord(self.task, self.version, self.contribution, release.digest, release.delta, weights)

    def write(self, record: VersionRecord | None, ledger: Ledger) -> None:
        """Writes what `absorb` gave, and a checkpoint when one is due. Within a transaction.

        Raises:
            StoreError: when the version was written before, and differently.
        """
        if record is not None:
            self._write_version(record, ledger)
        if self._versions_since >= self._checkpoint_every or replay_is_long(
            self._contributions_since, self._versions_since, self.num_params
        ):
            self.checkpoint(ledger)

    def _write_version(self, record: VersionRecord, ledger: Ledger) -> None:
        written = ledger.version(self.task, record.version)
        if written is None:
            ledger.put_version(record)
        elif written.parameters != record.parameters:
            raise StoreError(
                f"{ledger.path}: version {record.version} replays to {record.parameters[:16]}, the ledger says"
                f" {written.parameters[:16]}",
                "the file or this program is not what wrote it: `fieldfold aggregator verify` tells more",
            )

    def checkpoint(self, ledger: Ledger) -> None:
        """Writes where a replay may begin. Within a transaction."""
        ledger.put_checkpoint(self.at_present())
        self._contributions_since = self._versions_since = 0

    def at_present(self) -> Checkpoint:
        """Where the fold stands: all that it goes on from."""
        return Checkpoint(
            task=self.task,
            version=self.version,
            contribution=self.contribution,
            exact=view_bytes(self.exact),
            released=view_bytes(self.released),
            state=msgspec.msgpack.encode(self._state),
        )

    def _drift(self, base_version: int, ledger: Ledger) -> Vector:
        """What the released model moved since `base_version`: the sum of the deltas in between."""
        moved = np.zeros(self.num_params, np.float32)
        for version in range(base_version + 1, self.version + 1):
            record = ledger.version(self.task, version)
            if record is None or not record.delta:
                raise StoreError(f"{ledger.path}: the delta to version {version} is missing", "restore a backup")
            moved += decode(unpack(ModelDelta, record.delta).payload, self.num_params)
        return moved


def replay_is_long(contributions: int, versions: int, num_params: int) -> bool:
    """Whether it takes seconds to fold so many contributions since a checkpoint into so many versions again."""
    steps = contributions + CONTRIBUTIONS_OF_A_VERSION * versions
    return steps * (num_params + PARAMS_OF_OVERHEAD) >= PARAMS_BETWEEN_CHECKPOINTS


def _remembered(norms: tuple[tuple[str, float], ...], node: str, norm: float) -> tuple[tuple[str, float], ...]:
    """The norms with one more: however often one node sends, it does not become what is typical."""
    mine = [place for place, (name, _) in enumerate(norms) if name == node]
    kept = norms if len(mine) < NORMS_OF_A_NODE else (*norms[: mine[0]], *norms[mine[0] + 1 :])
    return (*kept, (node, norm))[-NORMS_REMEMBERED:]
