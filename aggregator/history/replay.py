"""The fold once more, from the oldest point that the ledger still holds, through all settings it was folded with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Checkpoint, Decision, Place, VersionRecord
from aggregator.model import FoldSettings, GlobalModel
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import Vector, digest, from_bytes
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ModelDelta, unpack


def bundle_of(ledger: Ledger, task: str) -> Bundle:
    """The task's bundle, read and checked.

    Raises:
        StoreError: when the ledger does not hold it.
        BundleError: when it is damaged.
    """
    data = ledger.bundle(task)
    if data is None:
        raise StoreError(f"{ledger.path}: there is no task {task[:16]}", "restore a backup")
    return Bundle.from_bytes(data)


def present_task(ledger: Ledger) -> Bundle:
    """The task whose model is the present one.

    Raises:
        StoreError: when no model was begun.
    """
    tasks = ledger.tasks()
    if not tasks:
        raise StoreError(f"{ledger.path}: it holds no model yet", "there is one when a task was published and begun")
    return bundle_of(ledger, tasks[-1])


def begin(ledger: Ledger, bundle: Bundle, contribution: int) -> GlobalModel:
    """The model at the newest place, not after `contribution`, to fold the log from: version 0, or a checkpoint's.

    Raises:
        StoreError: when there is none, or it does not belong to the ledger.
    """
    task = bundle.digest
    run, stretches = ledger.run(task), ledger.stretches(task)
    if run is None or not stretches:
        raise StoreError(f"{ledger.path}: it holds no model of task {task[:16]}", "restore a backup")
    model = GlobalModel(bundle, FoldSettings.read(stretches[0], ledger))
    model.run = run
    point = _point(ledger, task, lambda place: place.contribution <= contribution)
    if point is not None:
        model.go_to(point, ledger)
    return model


def _point(ledger: Ledger, task: str, fits: Callable[[Place], bool]) -> Checkpoint | None:
    """The newest checkpoint that fits and from which the log is whole; None where it is version 0.

    Raises:
        StoreError: when there is none.
    """
    floor = ledger.floor(task)
    # The bundle tells what a checkpoint before the first contribution tells, and cannot be damaged unseen.
    places = [each for each in ledger.checkpoints(task) if each.contribution > 0]
    found = [each for each in places if each.contribution >= floor.contribution and fits(each)]
    if floor.version > 0 and not found:
        raise StoreError(
            f"{ledger.path}: what is needed for that is not kept any more",
            f"updates and deltas before version {floor.version} were dropped; see [retention]",
        )
    return ledger.checkpoint(task, found[-1].version) if found else None


def walk(model: GlobalModel, ledger: Ledger) -> Iterator[tuple[Decision, VersionRecord | None]]:
    """Folds all that follows, as it was folded then; gives each contribution with the version that it completed.

    Raises:
        StoreError: when something is missing that the fold needs.
    """
    ahead = [stretch for stretch in ledger.stretches(model.task) if stretch.contribution > model.contribution]
    for decision in ledger.accepted_after(model.task, model.contribution):
        record = model.absorb(decision, ledger)
        while ahead and ahead[0].contribution <= decision.id:
            model.enter(ahead.pop(0), ledger)
        yield decision, record


def released(ledger: Ledger, bundle: Bundle, version: int) -> Vector:
    """What every node held at a version (float32, num_params): the checkpoint before it, and the deltas since.

    Raises:
        StoreError: when the version was never released, or what leads to it is not kept any more.
    """
    task, newest = bundle.digest, ledger.newest_version(bundle.digest)
    if not 0 <= version <= newest:
        raise StoreError(f"{ledger.path}: there is no version {version}", f"the newest is {newest}")
    point = _point(ledger, task, lambda place: place.version <= version)
    values = from_bytes(point.released) if point else bundle.initial_parameters()
    for number in range((point.version if point else 0) + 1, version + 1):
        record = ledger.version(task, number)
        if record is None or not record.delta:
            raise StoreError(f"{ledger.path}: the delta to version {number} is missing", "restore a backup")
        values = values + decode(unpack(ModelDelta, record.delta).payload, values.size)
    record = ledger.version(task, version)
    if record is None or digest(values) != record.parameters:
        raise StoreError(
            f"{ledger.path}: version {version} comes out as {digest(values)[:16]}, which is not what was released",
            "`fieldfold aggregator verify` tells more",
        )
    return values
