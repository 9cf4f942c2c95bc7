"""Versions that were released before, made again from checkpoints and deltas."""

from __future__ import annotations

from collections.abc import Callable

from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Checkpoint, Place
from fieldfold.codec import decode
from fieldfold.errors import StoreError
from fieldfold.params import Vector, digest, from_bytes
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import ModelDelta, unpack


def newest_point(ledger: Ledger, task: str, fits: Callable[[Place], bool]) -> Checkpoint | None:
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


def released(ledger: Ledger, bundle: Bundle, version: int) -> Vector:
    """What every node held at a version (float32, num_params): the checkpoint before it, and the deltas since.

    Raises:
        StoreError: when the version was never released, or what leads to it is not kept any more.
    """
    task, newest = bundle.digest, ledger.newest_version(bundle.digest)
    if not 0 <= version <= newest:
        raise StoreError(f"{ledger.path}: there is no version {version}", f"the newest is {newest}")
    point = newest_point(ledger, task, lambda place: place.version <= version)
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
