"""Following the released model: snapshot, then delta after delta, with the same bits as everybody else. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fieldfold.codec import decode
from fieldfold.errors import CodecError, DataError, SignatureError, WireError
from fieldfold.params import Vector, digest, is_finite
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import Assemblies, Assembly, short
from fieldfold.wire.messages import Chunk, ModelDelta, ModelManifest, ModelSnapshot, unpack

MAX_PENDING = 2048
"""Deltas that may wait for the one before them; more mean that a snapshot is the shorter way."""
MAX_DELTA_BYTES = 1 << 28
MAX_ARRIVING = 64
"""Deltas of which some chunks have come and some have not."""


class Model(msgspec.Struct, frozen=True):
    """A released version as every node holds it.

    Attributes:
        run: names the model's history, in hex; versions of two runs have nothing to do with one another.
        normalisation: None where the task uses none.
    """

    run: str
    version: int
    parameters: Vector
    normalisation: Normalisation | None


class Follower:
    """The newest released model that can be reached with what has arrived.

    Args:
        task: digest of the bundle.
        num_params: of the vector that travels.
        num_features: that are normalised.
        first_parameters: gives the bundle's own, which are version 0 of every run.
        check: raises a SignatureError unless the delta with this SHA-256 (hex) was released under this seal.

    Attributes:
        model: replaced, never changed, so that another thread may read it at any time.
        manifest: the newest that was read.
        newest: the newest version of the run that was heard of.
        puzzled: something came that only a newer manifest can explain.
    """

    def __init__(
        self,
        task: str,
        num_params: int,
        num_features: int,
        first_parameters: Callable[[], Vector],
        check: Callable[[str, bytes], None],
    ) -> None:
        self.model: Model | None = None
        self.manifest: ModelManifest | None = None
        self.newest = 0
        self.puzzled = False
        self._applied = 0
        self._task = task
        self._num_params = num_params
        self._num_features = num_features
        self._first_parameters, self._check = first_parameters, check
        self._pending: dict[int, ModelDelta] = {}
        self._arriving = Assemblies(MAX_DELTA_BYTES, MAX_ARRIVING)

    # -- what is missing ---------------------------------------------------------------------------------------------

    @property
    def wants_snapshot(self) -> bool:
        """Whether the manifest's snapshot is the way, or the shorter one, to its version."""
        manifest = self.manifest
        if manifest is None or manifest.snapshot is None:
            return False
        return self.model is None or self.model.version < manifest.deltas_from

    @property
    def has_gap(self) -> bool:
        """Whether a newer version is known, and the delta to the next one is not here."""
        return self.model is not None and self.model.version < self.newest

    def missing_deltas(self) -> list[int]:
        """The versions up to the manifest's whose deltas are not here; none while a snapshot comes first."""
        if self.manifest is None or self.model is None or self.wants_snapshot:
            return []
        wanted = range(self.model.version + 1, self.manifest.version + 1)
        return [version for version in wanted if version not in self._pending]

    def hand_over(self, delta: bytes) -> Assembly | None:
        """What has come of the delta with this short digest, for a fetch to go on with."""
        return self._arriving.hand_over(delta)

    def heard_of(self, version: int) -> None:
        """A version of the run is out, says a receipt."""
        self.newest = max(self.newest, version)

    def count_applied(self) -> int:
        """How many deltas and snapshots have led to another version since this was asked last."""
        applied, self._applied = self._applied, 0
        return applied

    # -- what arrives ------------------------------------------------------------------------------------------------

    def start_from(self, model: Model) -> None:
        """Begins with a model from the store."""
        self._adopt_run(model.run)
        self._hold(model)

    def take_manifest(self, manifest: ModelManifest) -> bool:
        """Learns the newest version and the way to it; whether it is about the task.

        A model of another run is dropped, and so is one with other bits than the run has at its version.

        Raises:
            WireError: when it contradicts itself or the task.
        """
        if manifest.task != self._task:
            return False
        normalisation = self._normalisation(manifest)
        if manifest.snapshot is None and manifest.deltas_from > 0:
            raise WireError("the model manifest names no snapshot, and deltas that do not begin at version 0")
        self._adopt_run(manifest.run)
        self.manifest, self.puzzled = manifest, False
        self.newest = max(self.newest, manifest.version)
        model = self.model
        if (
            model is not None
            and model.version == manifest.version
            and digest(model.parameters) != manifest.parameters
        ):
            self._forget()
        if self.model is None and manifest.deltas_from == 0:
            self._hold(Model(manifest.run, 0, self._first_parameters(), normalisation))
        return True

    def start_over(self) -> None:
        """Goes back to what the next manifest says: the aggregator does not know the model that is here."""
        self._forget()
        self.manifest, self.newest, self.puzzled = None, 0, True

    def take_snapshot(self, data: bytes) -> None:
        """Begins anew from a snapshot, unless the model is as new, then goes on with the deltas that wait.

        Raises:
            WireError: when it is damaged or of another run.
        """
        snapshot = unpack(ModelSnapshot, data)
        if self.manifest is None or snapshot.run.hex() != self.manifest.run:
            raise WireError("the snapshot belongs to another run")
        try:
            parameters = decode(snapshot.payload, self._num_params)
        except CodecError as error:
            raise WireError(f"the snapshot does not decode: {error.reason}") from None
        if short(digest(parameters)) != snapshot.parameters:
            raise WireError("the snapshot does not have the parameters it says")
        if self.model is None or self.model.version < snapshot.version:
            self._applied += 1
            normalisation = self._normalisation(self.manifest)
            self._hold(Model(self.manifest.run, snapshot.version, parameters, normalisation))

    def take_chunk(self, chunk: Chunk) -> bool:
        """Takes a chunk of a delta, and keeps a whole one until its turn; whether the model moved.

        Raises:
            SignatureError: when it was not released.
            WireError: when it is damaged; the model is dropped if it does not have the bits it should have.
        """
        taken = self._arriving.take(chunk)
        if taken.spoiled:
            raise WireError(f"a delta is damaged: {taken.spoiled}")
        return taken.whole is not None and self.take_delta(taken.whole, taken.digest, taken.seal)

    def take_delta(self, data: bytes, digest: str, seal: bytes) -> bool:
        """Takes a whole delta with its SHA-256 (hex) and seal; as `take_chunk`."""
        try:
            self._check(digest, seal)
        except SignatureError:
            self.puzzled = True
            raise
        delta = unpack(ModelDelta, data)
        run = self.model.run if self.model else self.manifest.run if self.manifest else None
        if delta.run.hex() != run:
            self.puzzled = True
            return False
        self.newest = max(self.newest, delta.version)
        if self.model is not None and delta.version <= self.model.version:
            return False
        self._pending[delta.version] = delta
        if len(self._pending) > MAX_PENDING:
            del self._pending[min(self._pending)]
        return self._advance()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _adopt_run(self, run: str) -> None:
        if self.model is not None and self.model.run != run:
            self._forget()
            self.newest = 0

    def _forget(self) -> None:
        self.model = None
        self._pending.clear()

    def _hold(self, model: Model) -> None:
        self.model = model
        self.newest = max(self.newest, model.version)
        self._advance()

    def _normalisation(self, manifest: ModelManifest) -> Normalisation | None:
        if not manifest.mean and not manifest.std:
            return None
        if not len(manifest.mean) == len(manifest.std) == self._num_features:
            raise WireError(f"the model manifest's normalisation is not for {self._num_features} features")
        try:
            return Normalisation(manifest.mean, manifest.std)
        except DataError as error:
            raise WireError(f"in the model manifest, {error.reason}") from None

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
                self._forget()
                self.puzzled = True
                raise WireError(
                    f"version {delta.version} does not have the released digest", "the way to it is read anew"
                )
            model = Model(model.run, delta.version, parameters, model.normalisation)
            self._applied += 1
        self.model = model
        return model.version != begun_at
