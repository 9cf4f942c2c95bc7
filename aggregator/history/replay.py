"""The fold once more, from the oldest point that the ledger still holds, through all settings it was folded with."""

from __future__ import annotations

from collections.abc import Iterator

from aggregator.fold_settings import FoldSettings
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision, Place, TurnBack, VersionRecord
from aggregator.model import GlobalModel
from aggregator.past import newest_point
from fieldfold.errors import StoreError
from fieldfold.task.bundle import Bundle


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


def begin(ledger: Ledger, bundle: Bundle, place: Place) -> GlobalModel:
    """The model at the newest place, not after `place`, to fold the log from: version 0, or a checkpoint's.

    Raises:
        StoreError: when there is none, or it does not belong to the ledger.
    """
    task = bundle.digest
    run, stretches = ledger.run(task), ledger.stretches(task)
    if run is None or not stretches:
        raise StoreError(f"{ledger.path}: it holds no model of task {task[:16]}", "restore a backup")
    model = GlobalModel(bundle, FoldSettings.read(stretches[0], ledger))
    model.run = run
    point = newest_point(
        ledger, task, lambda each: each.version <= place.version and each.contribution <= place.contribution
    )
    if point is not None:
        model.go_to(point, ledger)
    return model


def walk(model: GlobalModel, ledger: Ledger) -> Iterator[tuple[Decision | None, VersionRecord | None]]:
    """Folds all that follows, as it was folded then; gives each contribution with the version that it completed.

    Where the model was turned back, a version comes without a contribution.

    Raises:
        StoreError: when something is missing that the fold needs.
    """
    ahead = [stretch for stretch in ledger.stretches(model.task) if stretch.contribution > model.contribution]
    back = [turn for turn in ledger.turns_back(model.task) if turn.version > model.version]
    for decision in ledger.accepted_after(model.task, model.contribution):
        yield from _turned(model, ledger, back, decision.id)
        record = model.absorb(decision, ledger)
        while ahead and ahead[0].contribution <= decision.id:
            model.enter(ahead.pop(0), ledger)
        yield decision, record
    yield from _turned(model, ledger, back, None)


def _turned(
    model: GlobalModel, ledger: Ledger, back: list[TurnBack], before: int | None
) -> Iterator[tuple[None, VersionRecord]]:
    """Turns the model back as it was before this contribution, or at the end of the log."""
    while back and (before is None or back[0].contribution < before):
        yield None, model.turn_back(back.pop(0).to_version, ledger)
