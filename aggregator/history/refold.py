"""`refold`: the model as if some nodes had not taken part, from the start or a version on, as a new ledger."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from aggregator.history.replay import begin, present_task, walk
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Origin, Place, Stretch, TaskRecord, TurnBack, VersionRecord
from aggregator.model import GlobalModel
from fieldfold.errors import ConfigError, StoreError
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ModelDelta, pack, unpack


class Branch(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        left_out: contributions that are not in it.
        version: its newest version.
        parent_version: the newest one of the run that it branched off from.
    """

    origin: Origin
    left_out: int
    version: int
    parent_version: int


def refold(  # noqa: PLR0913 - what is read, what is written, and what is asked for
    source: Ledger,
    target: Path,
    run: str,
    *,
    without: Collection[str],
    from_version: int,
    progress: Callable[[int], None],
) -> Branch:
    """Writes the branch to `target`, a new file; the source stays as it is. Equal input gives equal parameters.

    Every contribution that is left keeps its place in the log. What it was trained from is the version that stood at
    the same place: where the branch has released fewer by then, its base version is the lower one.

    Args:
        source: holds the run that is branched; its present task is meant.
        target: bears its name only when it is whole.
        run: the branch's name, in hex.
        without: nodes whose contributions are left out.
        from_version: up to which nothing changes.
        progress: told how many contributions were folded, after each.

    Raises:
        ConfigError: when a node is not in the log.
        StoreError: when the version cannot be made again, or the file not be written.
    """
    bundle = present_task(source)
    if target.exists():
        raise StoreError(f"{target}: there is a file already", "give a name that is free")
    for node in without:
        if node not in (known := source.nodes(bundle.digest)):
            raise ConfigError(f"{node}: nothing of it was ever accepted", f"known here: {', '.join(known)}")
    model = _at(source, bundle, from_version)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    ledger = Ledger(part, source.federation)
    try:
        branch = _Refolding(source, ledger, model, frozenset(without), run).write(progress)
    except BaseException:
        ledger.close()
        part.unlink(missing_ok=True)
        raise
    ledger.close()
    part.rename(target)
    return branch


def _at(source: Ledger, bundle: Bundle, version: int) -> GlobalModel:
    """The model when `version` had just been released."""
    record = source.version(bundle.digest, version)
    if record is None:
        newest = source.newest_version(bundle.digest)
        raise StoreError(f"{source.path}: there is no version {version}", f"the newest is {newest}")
    model = begin(source, bundle, Place(version, record.contribution))
    steps = walk(model, source)
    while model.version < version:
        if next(steps, None) is None:
            raise StoreError(f"{source.path}: the log ends before version {version}", "restore a backup")
    return model


class _Refolding:
    """One branch being written."""

    def __init__(self, source: Ledger, ledger: Ledger, model: GlobalModel, without: frozenset[str], run: str) -> None:
        self._source, self._ledger, self._model, self._without = source, ledger, model, without
        self._task, self._parent, self._start = model.task, model.run, model.contribution
        self._origin = Origin(run, self._task, self._parent, model.version, tuple(sorted(without)))
        self._places = source.version_places(self._task)
        self._first_version = model.version
        self._released_at: list[int] = []
        """The contributions that completed the versions behind the first."""
        model.run = run

    def write(self, progress: Callable[[int], None]) -> Branch:
        with self._ledger.transaction():
            self._copy()
            self._model.checkpoint(self._ledger)
            self._fold(progress)
        before = self._source.num_accepted(self._task, 0)
        return Branch(
            origin=self._origin,
            left_out=before - self._ledger.num_accepted(self._task, 0),
            version=self._model.version,
            parent_version=max(self._places),
        )

    def _copy(self) -> None:
        """What the branch shares with its parent; the messages in it bear the branch's name."""
        source, ledger, task = self._source, self._ledger, self._task
        bundle = self._model.bundle
        ledger.add_task(TaskRecord(task, bundle.manifest.name, bundle.data))
        for node, sums in source.statistics(task).items():
            if node not in self._without:
                ledger.put_statistics(task, node, sums)
        normalisation = source.normalisation(task)
        if normalisation is not None:
            ledger.put_normalisation(task, normalisation, len(source.statistics(task)))
        ledger.put_run(task, self._origin.run)
        for origin in (*source.origins(task), self._origin):
            ledger.put_origin(origin)
        if source.floor(task) != Place():
            ledger.raise_floor(task, Place(self._first_version, self._start), source.oldest_base(task))
        ledger.copy_forgotten(source)
        ledger.copy_contributions(source, task, self._start, self._without)
        for stretch in source.stretches(task):
            if stretch.contribution <= self._start:
                ledger.put_stretch(stretch)
        self._copy_versions()

    def _copy_versions(self) -> None:
        source, ledger, task = self._source, self._ledger, self._task
        for turn in source.turns_back(task):
            if turn.version <= self._first_version:
                ledger.put_turn_back(turn)
        for version in range(self._first_version + 1):
            record = source.version(task, version)
            if record is not None:
                ledger.put_version(self._renamed(record))

    def _renamed(self, record: VersionRecord) -> VersionRecord:
        if not record.delta:
            return record
        message = msgspec.structs.replace(unpack(ModelDelta, record.delta), run=bytes.fromhex(self._origin.run))
        return msgspec.structs.replace(record, delta=pack(message))

    def _fold(self, progress: Callable[[int], None]) -> None:
        model, ledger = self._model, self._ledger
        ahead = [each for each in self._source.stretches(self._task) if each.contribution > self._start]
        back = [each for each in self._source.turns_back(self._task) if each.version > self._first_version]
        for count, decision in enumerate(ledger.accepted_after(self._task, self._start), start=1):
            while ahead and ahead[0].contribution < decision.id:
                self._enter(ahead.pop(0))
            while back and back[0].contribution < decision.id:
                self._turn_back(back.pop(0))
            base = self._base(decision.base_version)
            ledger.set_base(decision.id, base, model.version - base)
            record = model.absorb(msgspec.structs.replace(decision, base_version=base), ledger)
            model.write(record, ledger)
            if record is not None:
                self._released_at.append(record.contribution)
            progress(count)
        for turn in back:
            self._turn_back(turn)

    def _turn_back(self, turn: TurnBack) -> None:
        """The parent was turned back here, and so is the branch: to what it had released at the same place."""
        self._model.write_turn_back(self._base(turn.to_version), self._ledger)
        self._released_at.append(self._model.contribution)

    def _enter(self, stretch: Stretch) -> None:
        """The parent went on with other settings here, and so does the branch."""
        here = msgspec.structs.replace(stretch, contribution=self._model.contribution, version=self._model.version)
        self._ledger.put_stretch(here)
        self._model.enter(here, self._ledger)
        self._model.checkpoint(self._ledger)

    def _base(self, version: int) -> int:
        """The branch's version at the place where the parent released `version`."""
        if version <= self._first_version:
            return version
        return self._first_version + bisect.bisect_right(self._released_at, self._places[version])
