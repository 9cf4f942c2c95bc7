"""The global model: a fold over the ledger, restored from its newest checkpoint and the contributions after it."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec
import numpy as np

from aggregator.fold.contribution import Contribution, Method
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Checkpoint, Decision, VersionRecord
from aggregator.release.model import advance
from aggregator.release.way import snapshot_is_due
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import Vector, digest, from_bytes, to_bytes
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ClientUpdate, ModelDelta, unpack

NORMS_REMEMBERED = 64


class GlobalModel:
    """Exact and released parameters of one task, moved by contributions and by nothing else.

    Attributes:
        run: names this model's history, in hex; random, drawn when it began.
        version: the newest released version.
        digest: of the released parameters at that version.
        released: what every node holds at that version (float32, num_params).
        exact: the aggregator's own model, which the released one follows.
        contribution: the last contribution in them.
        checkpoint_version: the version of the newest checkpoint, which is also the published snapshot.
    """

    def __init__(self, bundle: Bundle, method: Method, profile: str, checkpoint_every: int) -> None:
        self.bundle = bundle
        self.task = bundle.digest
        self.run = ""
        self.method = method
        self.version = 0
        self.exact: Vector = bundle.initial_parameters()
        self.released: Vector = self.exact.copy()
        self.digest = digest(self.released)
        self.contribution = 0
        self.checkpoint_version = 0
        self._state: Any = method.init()
        self._norms: tuple[float, ...] = ()
        self._profile = profile
        self._checkpoint_every = checkpoint_every
        self._delta_bytes = 0

    @property
    def num_params(self) -> int:
        """Length of the parameter vector."""
        return self.released.size

    @property
    def typical_norm(self) -> float | None:
        """Median norm of the recent accepted deltas; None before the first."""
        return statistics.median(self._norms) if self._norms else None

    def begin(self, ledger: Ledger, run: str) -> None:
        """Writes version 0, the bundle's own parameters, under the run's name. Within a transaction."""
        self.run = run
        ledger.put_run(self.task, self.run)
        ledger.put_version(VersionRecord(self.task, 0, 0, self.digest, b"", {}))
        self.checkpoint(ledger)

    def restore(self, ledger: Ledger) -> int:
        """Goes to the newest checkpoint and folds what came after it; returns how many contributions that were.

        Within a transaction, because versions that a crash kept from being written are written now.

        Raises:
            StoreError: when there is no sound checkpoint, or a version replays otherwise than it was written.
        """
        point = ledger.checkpoint(self.task)
        run = ledger.run(self.task)
        if point is None or run is None:
            raise StoreError(f"{ledger.path}: there is no checkpoint of task {self.task[:16]}", "restore a backup")
        self.run = run
        self.version = self.checkpoint_version = point.version
        self.contribution = point.contribution
        self.exact = from_bytes(point.exact)
        self.released = from_bytes(point.released)
        self.digest = digest(self.released)
        try:
            self._state = msgspec.msgpack.decode(point.state, type=type(self.method.init()))
        except msgspec.DecodeError as error:
            method = type(self.method).__name__
            raise StoreError(
                f"{ledger.path}: the checkpoint of version {point.version} holds no state of {method}: {error}",
                "start with the [fold] settings that wrote it, or restore a backup",
            ) from None
        self._norms = ledger.norms_until(self.task, point.contribution, NORMS_REMEMBERED)
        return len(self.catch_up(ledger))

    def catch_up(self, ledger: Ledger) -> list[VersionRecord | None]:
        """Folds what the ledger holds beyond the model; for each contribution the version that it completed, if any.

        Within a transaction. Vectors are replaced, never changed, so that a shallow copy of the model stays as it is.

        Raises:
            StoreError: when a version was written before, and differently.
        """
        return [self._absorb(decision, ledger) for decision in ledger.accepted_after(self.task, self.contribution)]

    def _absorb(self, decision: Decision, ledger: Ledger) -> VersionRecord | None:
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
            drift=self._drift(decision.base_version, ledger) if self.method.needs_drift else None,
        )
        self._state, step = self.method.fold(self._state, contribution, self.num_params)
        self._norms = (*self._norms, decision.norm)[-NORMS_REMEMBERED:]
        self.contribution = decision.id
        if step is None:
            return None
        self.exact = self.exact + step.update
        release = advance(self.exact, self.released, self.version, self.run, self._profile)
        self.version, self.released, self.digest = release.version, release.released, release.digest
        record = VersionRecord(self.task, self.version, decision.id, release.digest, release.delta, step.weights)
        self._write(record, ledger)
        return record

    def _write(self, record: VersionRecord, ledger: Ledger) -> None:
        written = ledger.version(self.task, record.version)
        if written is None:
            ledger.put_version(record)
        elif written.parameters != record.parameters:
            raise StoreError(
                f"{ledger.path}: version {record.version} replays to {record.parameters[:16]}, the ledger says"
                f" {written.parameters[:16]}",
                "start with the [fold] and [release] settings that wrote it, or restore a backup",
            )
        self._delta_bytes += len(record.delta)
        versions = self.version - self.checkpoint_version
        if snapshot_is_due(self._delta_bytes, versions, self.num_params, self._checkpoint_every):
            self.checkpoint(ledger)

    def checkpoint(self, ledger: Ledger) -> None:
        """Writes where a replay may begin. Within a transaction."""
        ledger.put_checkpoint(
            Checkpoint(
                task=self.task,
                version=self.version,
                contribution=self.contribution,
                exact=to_bytes(self.exact),
                released=to_bytes(self.released),
                state=msgspec.msgpack.encode(self._state),
            )
        )
        self.checkpoint_version, self._delta_bytes = self.version, 0

    def _drift(self, base_version: int, ledger: Ledger) -> Vector:
        """What the released model moved since `base_version`: the sum of the deltas in between."""
        moved = np.zeros(self.num_params, np.float32)
        for version in range(base_version + 1, self.version + 1):
            record = ledger.version(self.task, version)
            if record is not None:
                moved += decode(unpack(ModelDelta, record.delta).payload, self.num_params)
        return moved
