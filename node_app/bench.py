"""Everything that belongs to one task on this gateway: its data, its runtime, the served model, the residual."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import msgspec
import numpy as np

from fieldfold.codec import ErrorFeedback
from fieldfold.params import Vector
from fieldfold.sensors.dataset import Dataset, load, require_batch
from fieldfold.sensors.files import fingerprint
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task import RuntimeSettings, open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import Gate, LocalResult, Plan, run_seed, train_locally
from fieldfold.task.opening import chosen, version_of
from fieldfold.task.runtime import Evaluation, Runtime
from fieldfold.task.trial import try_out
from fieldfold.wire.messages import ClientUpdate
from node_app.adopt import Served
from node_app.config import NodeConfig
from node_app.follow import Model
from node_app.freshness import Freshness
from node_app.left_out import share_left_out
from node_app.personal import Personal
from node_app.records import Sample
from node_app.serving import Serving
from node_app.store import Parcel, Store, StoredVector
from node_app.train import plan_run

log = logging.getLogger(__name__)
VALIDATION_WINDOWS = 2000
RUNS_AHEAD = 8
"""Local runs that one update may hold: beyond that a gateway without a link would only drift from the fleet."""
AFTER_REJECTION_S = 15.0
SAMPLE_FEATURES, SAMPLE_POINTS = 256, 64


class Bench:
    """Reads the data when it is made; opens the runtime when there is a model. One thread owns it.

    Attributes:
        run: that the bench works in; None before the first model.
        adopted: the newest model that was evaluated here.
        found: how it did on the validation windows; None where there are none.
        serving: which model predictions are made with.
        personal: the gateway's own model beside it.
        left_out: what the codec left out of the newest update, as a share of what it was to carry.

    Raises:
        DataError: when the data is not what the task needs, or fills no batch.
    """

    def __init__(self, bundle: Bundle, config: NodeConfig, base: Path, store: Store) -> None:
        self.bundle = bundle
        self._config, self._store = config, store
        self._metric = bundle.manifest.metrics[0]
        self._base = base
        self._normalisation: Normalisation | None = None
        self._freshness = Freshness(fingerprint(config.data, base))
        self._take_dataset(load(bundle.manifest.data, config.data, base))
        self._runtime: Runtime | None = None
        self.adopted: Model | None = None
        self.found: Evaluation | None = None
        self.serving = Serving()
        self.personal = Personal(bundle, config.training)
        self._written: dict[str, Served] = {}
        self.run: str | None = None
        self.last_base: int | None = None
        self.left_out = 0.0
        self._local = bundle.initial_local()
        self._attempts = 0
        self._sent_at = time.monotonic()
        self._wait_s = config.training.wait_for_version_s

    def _take_dataset(self, dataset: Dataset) -> None:
        require_batch(dataset, self.bundle.manifest.batch_size)
        self.sums, self.report = dataset.sums, dataset.report
        self._dataset = dataset.normalised(self._normalisation) if self._normalisation is not None else dataset

    def sample(self) -> tuple[Sample, ...]:
        """The middle one of the training windows, of the first SAMPLE_FEATURES features, thinned to SAMPLE_POINTS."""
        train, schema = self._dataset.train, self._dataset.schema
        if not len(train):
            return ()
        start = int(train.starts[len(train) // 2])
        step = -(-train.window // SAMPLE_POINTS)
        window = np.asarray(train.rows[start : start + train.window : step], np.float64)
        return tuple(
            Sample(feature.name, tuple(each if math.isfinite(each) else None for each in window[:, place].tolist()))
            for place, feature in enumerate(schema.features[:SAMPLE_FEATURES])
        )

    def data_has_changed(self, now: float) -> bool:
        """Whether the files are worth reading again; `now` is of a clock that never jumps.

        Raises:
            DataError: when they are not there any more.
        """
        return self._freshness.is_worth_reading(fingerprint(self._config.data, self._base), now)

    def read_again(self) -> None:
        """Goes on with the data as it is now; the models are judged anew on it.

        Raises:
            DataError: when it is of no use; what was read before stays.
        """
        found = fingerprint(self._config.data, self._base)
        self._take_dataset(load(self.bundle.manifest.data, self._config.data, self._base))
        self._freshness.note_read(found)
        self.adopted = None
        if (served := self.serving.served) is not None and self._runtime is not None:
            self.serving.judged_anew(self._judged(self._runtime, served).score)
        if (own := self.personal.model) is not None and self._runtime is not None:
            self.personal.model = self._judged(self._runtime, own)

    def runtime(self, normalisation: Normalisation | None) -> Runtime:
        """The runtime, opened and checked at the first call; the data is normalised along with it.

        Raises:
            BundleError: when the bundle does not reproduce its self-check here.
        """
        if normalisation is not None and self._normalisation is None:
            self._dataset = self._dataset.normalised(normalisation)
            self._normalisation = normalisation
        if self._runtime is None:
            settings = self._config.training.runtime_settings()
            self._try_out(settings)
            runtime = open_runtime(self.bundle, settings)
            runtime.self_check()
            log.info("training with the runtime %s on %s: %s", runtime.name, runtime.device, runtime.reason)
            self._runtime = runtime
        return self._runtime

    def _try_out(self, settings: RuntimeSettings) -> None:
        """Before a bundle runs in this process it must have run in another; that is remembered for each runtime."""
        runtime = version_of(chosen(settings))
        if self._store.tried(self.bundle.digest) != runtime:
            log.info("trying out the task with %s in a process of its own", runtime)
            try_out(self.bundle, settings)
            self._store.put_tried(self.bundle.digest, runtime)

    # -- the released model ------------------------------------------------------------------------------------------

    def adopt(self, model: Model) -> None:
        """Evaluates a released model and serves it, or goes on serving a better one."""
        runtime = self.runtime(model.normalisation)
        if self.run is None:
            self._take_up(model.run, runtime)
        self.found = self._evaluate(runtime, model.parameters, self._local)
        newcomer = Served(model.version, model.parameters, self._local, self._score(self.found))
        self.serving.offer(newcomer, self._metric)
        self.adopted = model

    def _take_up(self, run: str, runtime: Runtime) -> None:
        """Goes on where the store says that this run was left."""
        self.run = run
        digest = self.bundle.digest
        local = self._store.vector(f"local/{digest}", digest)
        unsent = self._store.unsent(run)
        if local is not None and local.run == run:
            self._local = local.values
        pinned, served = self._store.pinned(run), self._kept("served", runtime)
        if served is not None and (pinned or self.personal.is_on or not served.personal):
            self.serving.take_up(served, self._kept("former", runtime), pinned=pinned)
        if self.personal.is_on:
            self.personal.model = self._kept("personal", runtime)
        if unsent is not None and not unsent.steps:
            self.last_base, self._attempts = unsent.base_version, 1

    def _kept(self, purpose: str, runtime: Runtime) -> Served | None:
        """A model that was served in this run, judged on the data as it is now."""
        found = self._store.vector(purpose, self.bundle.digest)
        if found is None or found.run != self.run:
            return None
        parameters, own = np.split(found.values, [self.bundle.manifest.layout.num_params])
        return self._judged(runtime, Served(found.version, parameters, own, None, found.personal))

    def _judged(self, runtime: Runtime, model: Served) -> Served:
        score = self._score(self._evaluate(runtime, model.parameters, model.local))
        return msgspec.structs.replace(model, score=score)

    @property
    def global_score(self) -> float | None:
        """The adopted model's deciding metric on this gateway's own validation data."""
        return self._score(self.found)

    def keep(self, newest: Model) -> None:
        """Writes newest and served model to disk, and what this gateway alone trains."""
        if newest.run != self.run:
            return
        kept = {"global": (newest.version, newest.parameters, False)}
        if self._local.size:
            kept[f"local/{self.bundle.digest}"] = (newest.version, self._local, False)
        present = {"served": self.serving.served, "former": self.serving.former, "personal": self.personal.model}
        for purpose, model in present.items():
            if model is not None and model is not self._written.get(purpose):
                kept[purpose] = (model.version, np.concatenate([model.parameters, model.local]), model.personal)
                self._written[purpose] = model
        for purpose, (version, values, personal) in kept.items():
            vector = StoredVector(self.bundle.digest, newest.run, version, values, newest.normalisation, personal)
            self._store.put_vector(purpose, vector)

    def _evaluate(self, runtime: Runtime, parameters: Vector, local: Vector) -> Evaluation | None:
        if not len(self._dataset.validation):
            return None
        return runtime.evaluate(parameters, self._dataset.validation.thinned(VALIDATION_WINDOWS).all(), local)

    def _score(self, found: Evaluation | None) -> float | None:
        return None if found is None else found.metrics[self._metric.name]

    # -- training ----------------------------------------------------------------------------------------------------

    def train(self, model: Model, gate: Gate) -> LocalResult | None:
        """A local run; None when the gate did not let it finish.

        An update of which nothing has left is taken back first, and the run begins where that one ended: what is
        handed in then holds both, and a gateway that was away for a week sends one update.

        Raises:
            DataError: when training leaves the finite numbers.
        """
        self._store.take_back(model.run)
        unsent = self._store.unsent(model.run)
        start = model.parameters + unsent.feedback.residual if unsent and unsent.steps else model.parameters
        plan = self._plan(model.version)
        runtime = self.runtime(model.normalisation)
        return train_locally(runtime, start, self._local, self._dataset.train, plan, gate)

    def train_personal(self, model: Model, num_steps: int, gate: Gate) -> None:
        """Follows a run of `num_steps` from `model` by one of the personal model, served where it is better here.

        Raises:
            BundleError: when the runtime fails.
        """
        plan = msgspec.structs.replace(self._plan(model.version), num_steps=num_steps)
        runtime = self.runtime(model.normalisation)
        trained = self.personal.train(runtime, model, self._local, self._dataset.train, plan, gate)
        if trained is not None:
            self.personal.model = self._judged(runtime, trained)
            self.serving.offer(self.personal.model, self._metric)

    def is_far_ahead(self, model: Model) -> bool:
        """Whether the update that waits to be sent already holds as many runs from `model` as are allowed."""
        waiting = self._store.steps_waiting(model.run, model.version)
        return waiting > 0 and waiting >= RUNS_AHEAD * self._plan(model.version).num_steps

    def _plan(self, version: int) -> Plan:
        manifest, config = self.bundle.manifest, self._config.training
        return plan_run(manifest, config, version, len(self._dataset.train), self._run_seed(version))

    def _run_seed(self, version: int) -> int:
        attempt = self._attempts if self.last_base == version else 0
        return run_seed(self._config.name, self._config.training.seed, version, attempt)

    def hand_in(self, model: Model, result: LocalResult) -> Parcel:
        """Encodes what a run led to and lays it into the outbox, together with what the codec left out.

        What is local only moves on here, and no byte of it gets into the update.
        """
        unsent = self._store.unsent(model.run)
        layout = self.bundle.manifest.layout
        feedback = (
            unsent.feedback if unsent else ErrorFeedback.start(layout.num_params, num_trained=layout.num_trained)
        )
        encoded = feedback.encode(result.delta, self._config.codec.profile, seed=self._run_seed(model.version))
        score, num_scored, loss = self._base_found()
        update = ClientUpdate(
            node=self._config.name,
            sequence=1,  # the store gives the real one
            run=bytes.fromhex(model.run),
            base_version=model.version,
            num_examples=len(self._dataset.train),
            num_steps=result.num_steps + (unsent.steps if unsent else 0),
            train_loss=result.train_loss,
            trained_norm=encoded.norm,
            base_score=(score, num_scored),
            base_loss=loss,
            class_scores=self.found.by_class if self.found is not None and num_scored else (),
            payload=encoded.payload,
        )
        parcel = self._store.add_update(update, encoded)
        self.left_out = share_left_out(encoded)
        self._local = result.local
        self._attempts = self._attempts + 1 if self.last_base == model.version else 1
        self.last_base, self._sent_at = model.version, time.monotonic()
        self._wait_s = self._config.training.wait_for_version_s
        return parcel

    def _base_found(self) -> tuple[float, int, float]:
        """Score of the adopted version, on how many examples, and its loss; zeros where nothing can be said."""
        score, found = self.global_score, self.found
        if score is None or found is None or not (math.isfinite(score) and math.isfinite(found.loss)):
            return 0.0, 0, 0.0
        return score, found.num_examples, found.loss

    def left_to_wait(self, version: int) -> float:
        """Seconds until training from `version` is allowed: at once, unless an update against it was handed in."""
        if self.last_base != version:
            return 0.0
        return max(0.0, self._sent_at + self._wait_s - time.monotonic())

    def rejected(self) -> None:
        """The newest update counts for nothing, so no newer version is to be waited for; but not at once again."""
        self._wait_s = min(self._config.training.wait_for_version_s, AFTER_REJECTION_S)

    def wait_no_longer(self) -> None:
        """Training from the same version is wanted all the same."""
        self.last_base = None
