"""Following the released model: snapshot, then delta after delta, with the same bits as everybody else. Pure."""

from __future__ import annotations

import msgspec
import numpy as np

from fieldfold.codec import decode
from fieldfold.errors import CodecError, DataError, WireError
from fieldfold.params import Vector, digest, is_finite
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import Assemblies, Assembly, check_chunk, object_digest, short
from fieldfold.wire.messages import Chunk, ModelDelta, ModelManifest, ModelSnapshot, unpack

MAX_PENDING = 2048
"""Deltas that may wait for the one before them; more mean that a snapshot is the shorter way."""


MAX_DELTA_BYTES = 1 << 28
MAX_ARRIVING = 64
"""Deltas of which some chunks have come and some have not."""


class Model(msgspec.Struct, frozen=True):
    """A released version as every node holds it. `normalisation` is None where the task uses none."""

    version: int
    parameters: Vector
    normalisation: Normalisation | None


class Fetch:
    """One retained object that is being read chunk by chunk; chunks of other objects are passed over."""

    def __init__(self, topic_filter: str, digest_hex: str, size_bytes: int, chunk_bytes: int) -> None:
        self.topic_filter = topic_filter
        self.digest = digest_hex
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes
        self._assembly: Assembly | None = None

    def take(self, message: bytes) -> bytes | None:
        """The whole object once its last chunk has come.

        Raises:
            WireError: when the chunks do not make up the object that was announced.
        """
        chunk = unpack(Chunk, message)
        announced = (short(self.digest), self.size_bytes, self.chunk_bytes)
        if (chunk.digest, chunk.total_bytes, chunk.chunk_bytes) != announced:
            return None
        check_chunk(chunk, self.size_bytes)
        if self._assembly is None:
            self._assembly = Assembly(chunk)
        assembly = self._assembly
        assembly.add(chunk)
        if assembly.missing:
            return None
        self._assembly = None
        data = assembly.whole()
        if object_digest(data) != self.digest:
            raise WireError("the object that was read is not the one that was announced", "it is read again")
        return data

    @property
    def progress(self) -> float:
        """Share of the chunks that have come."""
        return 0.0 if self._assembly is None else 1.0 - self._assembly.missing / self._assembly.num_chunks


class Follower:
    """The newest released model that can be reached with what has arrived.

    Attributes:
        model: replaced, never changed, so that another thread may read it at any time.
        newest: the newest version that was heard of.
    """

    def __init__(self, task: str, num_params: int, num_features: int) -> None:
        self.model: Model | None = None
        self.manifest: ModelManifest | None = None
        self.newest = 0
        self._task = short(task)
        self._num_params = num_params
        self._num_features = num_features
        self._pending: dict[int, ModelDelta] = {}
        self._arriving = Assemblies(MAX_DELTA_BYTES, MAX_ARRIVING)

    @property
    def wants_snapshot(self) -> bool:
        """Whether the deltas at hand cannot lead to the version in the manifest, but a snapshot would help."""
        manifest = self.manifest
        if manifest is None:
            return False
        if self.model is None:
            return True
        behind = self.model.version < manifest.version
        return behind and self.model.version < manifest.snapshot_version and not self._next_is_here()

    @property
    def has_gap(self) -> bool:
        """Whether a newer version is known, and the delta to the next one is not here."""
        return self.model is not None and self.model.version < self.newest and not self._next_is_here()

    def _next_is_here(self) -> bool:
        return self.model is not None and self.model.version + 1 in self._pending

    def start_from(self, model: Model) -> None:
        """Begins with a model from the store."""
        self.model = model
        self.newest = max(self.newest, model.version)
        self._advance()

    def take_manifest(self, manifest: ModelManifest) -> None:
        """Notes the newest version; one for another task is passed over."""
        if short(manifest.task) == self._task:
            self.manifest = manifest
            self.newest = max(self.newest, manifest.version)

    def take_snapshot(self, data: bytes) -> None:
        """Begins anew from a snapshot, unless the model is as new, then goes on with the deltas that wait.

        Raises:
            WireError: when it is damaged or of another task.
        """
        snapshot = unpack(ModelSnapshot, data)
        if snapshot.task != self._task:
            raise WireError("the snapshot belongs to another task")
        try:
            parameters = decode(snapshot.payload, self._num_params)
        except CodecError as error:
            raise WireError(f"the snapshot does not decode: {error.reason}") from None
        if short(digest(parameters)) != snapshot.parameters:
            raise WireError("the snapshot does not have the parameters it says")
        model = Model(snapshot.version, parameters, self._normalisation(snapshot))
        if self.model is None or self.model.version < model.version:
            self.start_from(model)

    def _normalisation(self, snapshot: ModelSnapshot) -> Normalisation | None:
        expected = self._num_features * 8
        if not snapshot.mean and not snapshot.std:
            return None
        if len(snapshot.mean) != expected or len(snapshot.std) != expected:
            raise WireError(f"the snapshot's normalisation is not for {self._num_features} features")
        mean = np.frombuffer(snapshot.mean, "<f8").tolist()
        std = np.frombuffer(snapshot.std, "<f8").tolist()
        try:
            return Normalisation(tuple(mean), tuple(std))
        except DataError as error:
            raise WireError(f"in the snapshot, {error.reason}") from None

    def take_delta(self, message: bytes) -> bool:
        """Takes a chunk of a delta, and keeps a whole one until its turn; whether the model moved.

        Raises:
            WireError: when it is damaged; the model is dropped if it does not have the bits it should have.
        """
        taken = self._arriving.take(unpack(Chunk, message))
        if taken.spoiled:
            raise WireError(f"a delta is damaged: {taken.spoiled}")
        if taken.whole is None:
            return False
        delta = unpack(ModelDelta, taken.whole)
        if delta.task != self._task:
            return False
        self.newest = max(self.newest, delta.version)
        if self.model is not None and delta.version <= self.model.version:
            return False
        self._pending[delta.version] = delta
        if len(self._pending) > MAX_PENDING:
            del self._pending[min(self._pending)]
        return self._advance()

    def _advance(self) -> bool:
        """Adds the deltas whose turn it is."""
        model = self.model
        if model is None:
            return False
        begun_at = model.version
        for version in [version for version in self._pending if version <= model.version]:
            del self._pending[version]
        while (delta := self._pending.pop(model.version + 1, None)) is not None:
            try:
                parameters = model.parameters + decode(delta.payload, self._num_params)
            except CodecError as error:
                self.model = model
                raise WireError(f"the delta to version {delta.version} does not decode: {error.reason}") from None
            if short(digest(parameters)) != delta.parameters or not is_finite(parameters):
                self.model = None
                raise WireError(
                    f"version {delta.version} does not have the released digest", "a snapshot is fetched instead"
                )
            model = Model(delta.version, parameters, model.normalisation)
        self.model = model
        return model.version != begun_at
