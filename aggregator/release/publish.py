"""The retained topics a federation shows: task, model, and the deltas between snapshots."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import ModelManifest, TaskManifest, write
from fieldfold.wire.topics import Topics

SNAPSHOT_SLOTS = 2


class Publication(msgspec.Struct, frozen=True):
    """A message for a retained topic."""

    topic: str
    payload: bytes


def task_messages(topics: Topics, bundle: Bundle, chunk_bytes: int) -> Iterator[Publication]:
    """The bundle in chunks, then the manifest that names it."""
    for index, message in enumerate(cut(bundle.data, chunk_bytes)):
        yield Publication(topics.bundle(bundle.digest, index), message)
    manifest = TaskManifest(
        name=bundle.manifest.name, digest=bundle.digest, size_bytes=len(bundle.data), chunk_bytes=chunk_bytes
    )
    yield Publication(topics.task_manifest, write(manifest))


def delta_messages(
    topics: Topics, version: int, delta: bytes, snapshot_every: int, chunk_bytes: int
) -> Iterator[Publication]:
    """A version's delta. Slots are reused only after the snapshot that made their first use superfluous."""
    slot = version % (2 * snapshot_every)
    for index, message in enumerate(cut(delta, chunk_bytes)):
        yield Publication(topics.delta(slot, index), message)


def snapshot_messages(
    topics: Topics, version: int, snapshot: bytes, snapshot_every: int, chunk_bytes: int
) -> Iterator[Publication]:
    """The whole model; the slot before it stays readable for those who are reading it."""
    slot = snapshot_slot(version, snapshot_every)
    for index, message in enumerate(cut(snapshot, chunk_bytes)):
        yield Publication(topics.snapshot(slot, index), message)


def snapshot_slot(version: int, snapshot_every: int) -> int:
    """In which of the two slots the snapshot of `version` stands."""
    return version // snapshot_every % SNAPSHOT_SLOTS


class PublishedSnapshot(msgspec.Struct, frozen=True):
    """Which snapshot is out there."""

    version: int
    slot: int
    digest: str
    size_bytes: int


def describe_snapshot(version: int, snapshot: bytes, snapshot_every: int) -> PublishedSnapshot:
    """What the manifest says of a snapshot."""
    return PublishedSnapshot(version, snapshot_slot(version, snapshot_every), object_digest(snapshot), len(snapshot))


def manifest_message(  # noqa: PLR0913 - the manifest has as many fields
    topics: Topics,
    *,
    task: str,
    version: int,
    parameters: str,
    snapshot: PublishedSnapshot,
    chunk_bytes: int,
    score: float | None,
) -> Publication:
    """The retained manifest that every newcomer reads first."""
    manifest = ModelManifest(
        task=task,
        version=version,
        parameters=parameters,
        snapshot_version=snapshot.version,
        snapshot_slot=snapshot.slot,
        snapshot_digest=snapshot.digest,
        snapshot_bytes=snapshot.size_bytes,
        chunk_bytes=chunk_bytes,
        score=score,
        released_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return Publication(topics.model_manifest, write(manifest))


def normalisation_bytes(normalisation: Normalisation) -> bytes:
    """The ledger's form of a normalisation."""
    return msgspec.msgpack.encode(normalisation)
