"""`verify`: folds the log again and compares all that the ledger says came of it, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from aggregator.history.replay import begin, bundle_of, walk
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision, Origin, Place, VersionRecord
from aggregator.model import GlobalModel
from fieldfold.codec import decode
from fieldfold.errors import FieldfoldError
from fieldfold.params import Vector, digest
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import ModelDelta, unpack


class Difference(msgspec.Struct, frozen=True):
    """Where the ledger and its replay part: at this contribution, in or before this version."""

    version: int
    contribution: int
    what: str


class Finding(msgspec.Struct, frozen=True):
    """What the replay of one task's log came to.

    Attributes:
        from_version: where it began: 0, or the oldest checkpoint that is kept.
        to_version: the newest version that was compared.
        contributions, versions, checkpoints: how many were compared.
        origins: of which runs this one is a branch, the oldest first.
        difference: the first one; None when all is as the ledger says.
    """

    task: str
    run: str
    from_version: int
    to_version: int
    contributions: int
    versions: int
    checkpoints: int
    origins: tuple[Origin, ...] = ()
    difference: Difference | None = None


def verify(ledger: Ledger, task: str, progress: Callable[[int], None]) -> Finding:
    """Replays a task's log from the oldest point that is kept.

    Args:
        ledger: to be read; nothing is written.
        task: digest of the bundle.
        progress: told how many contributions were folded, after each.

    Raises:
        StoreError: when there is nothing to begin with.
    """
    model = begin(ledger, bundle_of(ledger, task), ledger.floor(task))
    return _Audit(model, ledger).run(progress)


class _Audit:
    """One replay and its counts."""

    def __init__(self, model: GlobalModel, ledger: Ledger) -> None:
        self._model, self._ledger = model, ledger
        self._from_version, self._newest = model.version, ledger.newest_version(model.task)
        self._checkpoints = frozenset(ledger.checkpoints(model.task))
        self._place = model.contribution
        self._contributions = self._versions = self._compared = 0

    def run(self, progress: Callable[[int], None]) -> Finding:
        """Goes to the end of the log, or to the first difference."""
        try:
            what = self._first_difference(progress)
        except FieldfoldError as error:
            following = next(self._ledger.accepted_after(self._model.task, self._place), None)
            self._place = following.id if following else self._place
            what = f"it cannot be folded: {error.reason}"
        model = self._model
        return Finding(
            task=model.task,
            run=model.run,
            from_version=self._from_version,
            to_version=min(model.version, self._newest),
            contributions=self._contributions,
            versions=self._versions,
            checkpoints=self._compared,
            origins=tuple(self._ledger.origins(model.task)),
            difference=Difference(model.version, self._place, what) if what else None,
        )

    def _first_difference(self, progress: Callable[[int], None]) -> str:
        if what := self._at_the_beginning():
            return what
        held = self._model.released
        for decision, record in walk(self._model, self._ledger):
            if decision is not None:
                self._contributions, self._place = self._contributions + 1, decision.id
                if what := self._in_contribution(decision):
                    return what
            if what := self._in_version(record, held) or self._in_checkpoint():
                return what
            held = self._model.released
            progress(self._contributions)
        if self._model.version < self._newest:
            return f"the log ends here, but version {self._newest} was released"
        return ""

    def _at_the_beginning(self) -> str:
        """Version 0, or the version of the oldest checkpoint, against its digest; and a checkpoint of version 0."""
        written = self._ledger.version(self._model.task, self._model.version)
        if written is None:
            return "the version is not in the ledger"
        self._versions += 1
        unequal = _unequal("its parameters", self._model.digest, written.parameters)
        return unequal or ("" if self._place else self._in_checkpoint())

    def _in_contribution(self, decision: Decision) -> str:
        if decision.body is not None and object_digest(decision.body) != decision.digest:
            return f"update {decision.sequence} of {decision.node} is not what was received"
        return ""

    def _in_version(self, record: VersionRecord | None, held: Vector) -> str:
        """A version's digest, and that the delta which went out leads to it; a crash may keep the last ones back."""
        if record is None or record.version > self._newest:
            return ""
        written = self._ledger.version(record.task, record.version)
        if written is None:
            return "the version is not in the ledger"
        self._versions += 1
        if written.contribution != record.contribution:
            return f"it is completed by contribution {record.contribution}, the ledger says {written.contribution}"
        if what := _unequal("its parameters", record.parameters, written.parameters):
            return what
        if written.delta == record.delta:
            return ""
        led_to = digest(held + decode(unpack(ModelDelta, written.delta).payload, held.size))
        return _unequal("the parameters that its delta leads to", led_to, record.parameters)

    def _in_checkpoint(self) -> str:
        """The checkpoint that was written here, if there is one, bit for bit."""
        if Place(self._model.version, self._place) not in self._checkpoints:
            return ""
        point = self._ledger.checkpoint(self._model.task, self._model.version)
        self._compared += 1
        return "" if self._model.at_present() == point else "the checkpoint written here holds something else"


def _unequal(what: str, found: str, written: str) -> str:
    return "" if found == written else f"{what} come out as {found[:16]}, the ledger says {written[:16]}"
