"""The topics a federation shows, signed: task, model, and the deltas that lead from version to version."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from aggregator.release.shelf import Publication, Shelf
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.trust.signing import Signer
from fieldfold.wire.chunks import cut, object_digest
from fieldfold.wire.messages import ModelManifest, SnapshotPlace, TaskManifest, write
from fieldfold.wire.topics import Topics


def task_messages(  # noqa: PLR0913 - what is shown, where, by whom
    shelf: Shelf, topics: Topics, signer: Signer, bundle: Bundle, *, chunk_bytes: int, issued: int
) -> Iterator[Publication]:
    """The bundle in chunks, then the manifest that names it."""
    yield from shelf.put(topics.bundle(bundle.digest), bundle.data, chunk_bytes)
    manifest = TaskManifest(
        issued=issued,
        name=bundle.manifest.name,
        digest=bundle.digest,
        size_bytes=len(bundle.data),
        chunk_bytes=chunk_bytes,
    )
    yield Publication(topics.task_manifest, signer.message(topics.task_manifest, write(manifest)))


def live_messages(topics: Topics, delta: bytes, seal: bytes, chunk_bytes: int) -> Iterator[Publication]:
    """A version's delta for those who follow; not to be retained."""
    for index, message in enumerate(cut(delta, chunk_bytes, seal)):
        yield Publication(topics.live(index), message)


def seal_of(topics: Topics, signer: Signer, delta: bytes) -> bytes:
    """That of a version's delta, wherever it is read."""
    return signer.seal(topics.deltas, object_digest(delta))


def manifest_message(  # noqa: PLR0913 - the manifest has as many fields
    topics: Topics,
    signer: Signer,
    *,
    issued: int,
    task: str,
    run: str,
    version: int,
    parameters: str,
    deltas_from: int,
    delta_slots: int,
    snapshot: SnapshotPlace | None,
    normalisation: Normalisation | None,
    chunk_bytes: int,
    score: float | None,
) -> Publication:
    """The retained manifest that everybody reads who comes back or has missed something."""
    manifest = ModelManifest(
        issued=issued,
        task=task,
        run=run,
        version=version,
        parameters=parameters,
        deltas_from=deltas_from,
        delta_slots=delta_slots,
        chunk_bytes=chunk_bytes,
        snapshot=snapshot,
        mean=normalisation.mean if normalisation else (),
        std=normalisation.std if normalisation else (),
        score=score,
        released_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return Publication(topics.model_manifest, signer.message(topics.model_manifest, write(manifest)))
