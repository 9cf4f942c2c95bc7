"""The one thread that owns data, runtime and parameters: it adopts, trains, encodes and fills the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fieldfold.codec import ErrorFeedback
from fieldfold.errors import DataError, FieldfoldError
from fieldfold.params import Vector
from fieldfold.sensors.dataset import Dataset, load, require_batch
from fieldfold.sensors.statistics import FeatureSums, Normalisation
from fieldfold.task import open_runtime
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Metric
from fieldfold.task.runtime import Evaluation, Runtime
from fieldfold.wire.chunks import short
from fieldfold.wire.messages import ClientUpdate
from node_app.adopt import Served, adopt
from node_app.config import NodeConfig
from node_app.follow import Follower, Model
from node_app.memory import give_back
from node_app.store import Store, StoredVector
from node_app.train import LocalResult, plan_run, train_locally

log = logging.getLogger(__name__)
RETRY_S = 60.0
"""Data that cannot be used is looked at again this often: somebody may have mended it."""
FIRST_LOOK_S = 1.0
"""After a start, a newer model than the stored one is given this long to arrive before training begins."""
VALIDATION_WINDOWS = 2000
OUTBOX_FULL = 8
KEEP_EVERY_S = 60.0
IDLE_AFTER_S = 10.0


class Progress(msgspec.Struct, frozen=True):
    """What of the learner may be shown; replaced, never changed."""

    state: str = "starting"
    detail: str = ""
    runtime: str = ""
    adopted_version: int | None = None
    served_version: int | None = None
    served_score: float | None = None
    global_score: float | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    steps_per_s: float | None = None
    last_update_bytes: int = 0
    updates: int = 0


class Learner:
    """Give it a task and a follower; it does the rest until `stop`.

    Args:
        on_statistics: called with the node's feature sums when its data has been read.
        on_update: called when an update lies in the outbox.
    """

    def __init__(
        self,
        config: NodeConfig,
        base: Path,
        store: Store,
        on_statistics: Callable[[FeatureSums], None],
        on_update: Callable[[], None],
    ) -> None:
        self._config, self._base, self._store = config, base, store
        self._on_statistics, self._on_update = on_statistics, on_update
        self._changed = threading.Condition()
        self._stopping = False
        self._news = 0
        self._seen = 0
        self._paused = False
        self._trouble_over = False
        self._task: tuple[Bundle, Follower] | None = None
        self._bench: Bench | None = None
        self.progress = Progress()
        self.dataset: Dataset | None = None
        self._started_at = time.monotonic()
        self._kept_at = self._started_at
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    # -- from other threads ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins learning."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the present step."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def give_task(self, bundle: Bundle, follower: Follower) -> None:
        """Works on another task from now on."""
        with self._changed:
            self._task = (bundle, follower)
            self._tell()

    def wake(self) -> None:
        """The follower has moved, or a receipt has come."""
        with self._changed:
            self._tell()

    def set_paused(self, *, paused: bool) -> None:
        """Holds or goes on, in the middle of a run."""
        with self._changed:
            self._paused = paused
            self._trouble_over = True
            self._tell()

    def _tell(self) -> None:
        self._news += 1
        self._changed.notify_all()

    @property
    def paused(self) -> bool:
        """Whether it is held."""
        return self._paused

    # -- the gate that training passes before every step -------------------------------------------------------------

    def passes(self, wait_s: float) -> bool:
        """See train.Gate."""
        with self._changed:
            if wait_s > 0:
                self._changed.wait_for(self._interrupted, wait_s)
            if self._paused:
                self._show(state="paused")
                self._sleep(lambda: self._stopping or not self._paused, None)
            return not self._interrupted()

    def stepped(self, step: int, of: int, loss: float) -> None:
        """See train.Gate."""
        self._show(state="learning", step=step, steps=of, loss=loss)

    def _interrupted(self) -> bool:
        return self._stopping or (
            self._bench is not None and self._task is not None and self._task[0].digest != self._bench.bundle.digest
        )

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._seen = self._news
            try:
                self._cycle()
            except FieldfoldError as error:
                self._complain(error)
        self._keep()

    def _complain(self, error: FieldfoldError) -> None:
        """Says what is wrong, once, and tries again after a while, or as soon as somebody says `resume`."""
        if self.progress.detail != str(error):
            log.error("needs attention: %s", error)
        self._show(state="needs attention", detail=str(error))
        with self._changed:
            self._trouble_over = False
            self._changed.wait_for(lambda: self._stopping or self._trouble_over, RETRY_S)

    def _cycle(self) -> None:
        """One turn: whatever is missing is waited for, and said."""
        task = self._task
        if self._paused:
            self._wait("paused")
        elif task is None:
            self._wait("waiting for a task")
        else:
            bench = self._bench_for(*task)
            model = task[1].model
            if model is None:
                self._wait("waiting for the model" if task[1].manifest else "waiting for the fleet's statistics")
            elif not self._caught_up(task[1]):
                self._rest(0.1)
            else:
                bench.prepare(model.normalisation)
                self._turn(bench, model)

    def _caught_up(self, follower: Follower) -> bool:
        """Right after a start, a stored model is soon overtaken by what the broker holds."""
        settled = follower.manifest is not None and not follower.wants_snapshot and not follower.has_gap
        return settled or time.monotonic() - self._started_at > FIRST_LOOK_S

    def _turn(self, bench: Bench, model: Model) -> None:
        if self.progress.adopted_version != model.version:
            self._adopt(bench, model)
        if not self._config.training.enabled:
            self._wait("following")
        elif self._store.num_waiting() >= OUTBOX_FULL:
            self._wait("waiting for receipts")
        elif bench.last_base == model.version and not bench.waited_out(self._config.training.wait_for_version_s):
            self._wait("waiting for a newer version", bench.left_to_wait(self._config.training.wait_for_version_s))
        else:
            self._learn(bench, model)

    def _bench_for(self, bundle: Bundle, follower: Follower) -> Bench:
        if self._bench is None or self._bench.bundle.digest != bundle.digest:
            self._show(state="reading data", detail="")
            self._bench = None
            bench = Bench(bundle, self._config, self._base, self._store)
            self.dataset = bench.dataset
            self._show(adopted_version=None, served_version=None, served_score=None, global_score=None)
            self._bench = bench
            give_back()
            if follower.model is None:
                self._on_statistics(bench.dataset.sums)
        return self._bench

    def _adopt(self, bench: Bench, model: Model) -> None:
        metric = bench.bundle.manifest.metrics[0]
        if bench.served is None:
            bench.served = self._served_before(bench, metric)
        found = bench.evaluate(model.parameters)
        bench.served = adopt(model.version, model.parameters, found, bench.served, metric)
        bench.found = found
        self._show(
            adopted_version=model.version,
            served_version=bench.served.version,
            served_score=bench.served.score,
            global_score=found.metrics[metric.name] if found else None,
            runtime=bench.runtime.name if bench.runtime else "",
        )
        if time.monotonic() - self._kept_at >= KEEP_EVERY_S:
            self._keep()

    def _served_before(self, bench: Bench, metric: Metric) -> Served | None:
        """The model that was served when the daemon ended."""
        kept = self._store.vector("served", bench.bundle.digest)
        if kept is None:
            return None
        found = bench.evaluate(kept.values)
        return Served(kept.version, kept.values, found.metrics[metric.name] if found else None)

    def _keep(self) -> None:
        """Writes newest and served model to disk, now and then and at the end, to spare the box's flash."""
        self._kept_at = time.monotonic()
        task, bench = self._task, self._bench
        if task is None or bench is None or task[1].model is None:
            return
        digest, model = bench.bundle.digest, task[1].model
        if model.normalisation is not None:
            self._store.put_fact(f"normalisation/{digest}", msgspec.msgpack.encode(model.normalisation))
        self._store.put_vector("global", StoredVector(digest, model.version, model.parameters))
        if bench.served is not None:
            self._store.put_vector("served", StoredVector(digest, bench.served.version, bench.served.parameters))

    def _learn(self, bench: Bench, model: Model) -> None:
        if bench.runtime is None:
            raise DataError("there is no runtime")
        manifest, windows = bench.bundle.manifest, bench.dataset.train
        require_batch(bench.dataset, manifest.batch_size)
        plan = plan_run(manifest, self._config.training, self._config.name, model.version, len(windows))
        self._show(state="learning", detail="", step=0, steps=plan.num_steps)
        result = train_locally(bench.runtime, model.parameters, windows, plan, self)
        if result is not None:
            self._hand_in(bench, model, result)

    def _hand_in(self, bench: Bench, model: Model, result: LocalResult) -> None:
        encoded = bench.feedback(self._store).encode(result.delta, self._config.codec.profile)
        score = bench.found.metrics[bench.bundle.manifest.metrics[0].name] if bench.found else 0.0
        update = ClientUpdate(
            node=self._config.name,
            sequence=1,
            task=short(bench.bundle.digest),
            base_version=model.version,
            num_examples=len(bench.dataset.train),
            num_steps=result.num_steps,
            train_loss=result.train_loss,
            base_score=(score, bench.found.num_examples if bench.found else 0),
            payload=encoded.payload,
        )
        parcel = self._store.add_update(update, bench.bundle.digest, encoded.feedback)
        bench.sent(model.version)
        self._show(
            loss=result.train_loss,
            steps_per_s=result.num_steps / max(result.seconds, 1e-9),
            last_update_bytes=len(parcel.body),
            updates=self.progress.updates + 1,
        )
        if self.progress.updates == 1:
            give_back()
        self._on_update()

    # -- waiting and showing -----------------------------------------------------------------------------------------

    def _wait(self, state: str, seconds: float | None = None) -> None:
        if self.progress.state != state:
            self._show(state=state, detail="")
        self._rest(seconds)

    def _rest(self, seconds: float | None) -> None:
        """Until something has happened since this turn began, or the time is over."""
        with self._changed:
            self._sleep(lambda: self._stopping or self._news != self._seen, seconds)

    def _sleep(self, over: Callable[[], bool], seconds: float | None) -> None:
        """Waits; a sleep that turns out to be long gives memory back."""
        if seconds is not None and seconds <= IDLE_AFTER_S:
            self._changed.wait_for(over, seconds)
        elif not self._changed.wait_for(over, IDLE_AFTER_S):
            give_back()
            self._changed.wait_for(over, None if seconds is None else seconds - IDLE_AFTER_S)

    def _show(self, **changes: object) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)


class Bench:
    """Everything that belongs to one task here: data, runtime, residual, and what was sent last."""

    def __init__(self, bundle: Bundle, config: NodeConfig, base: Path, store: Store) -> None:
        self.bundle = bundle
        self.dataset = load(bundle.manifest.data, config.data, base)
        require_batch(self.dataset, bundle.manifest.batch_size)
        self.runtime: Runtime | None = None
        self.served: Served | None = None
        self.found: Evaluation | None = None
        kept = store.residual(bundle.digest)
        self.last_base = kept[0] if kept else None
        self._sent_at = time.monotonic()
        self._threads = config.training.threads
        self._normalisation: Normalisation | None = None

    def prepare(self, normalisation: Normalisation | None) -> None:
        """Normalises the data and opens the runtime, once.

        Raises:
            BundleError: when the bundle does not reproduce its self-check here.
        """
        if normalisation is not None and self._normalisation is None:
            self.dataset = self.dataset.normalised(normalisation)
            self._normalisation = normalisation
        if self.runtime is None:
            runtime = open_runtime(self.bundle, threads=self._threads)
            runtime.self_check()
            self.runtime = runtime

    def feedback(self, store: Store) -> ErrorFeedback:
        """The residual of the updates so far; a receipt may have put something back into it."""
        kept = store.residual(self.bundle.digest)
        layout = self.bundle.manifest.layout
        return kept[1] if kept else ErrorFeedback.start(layout.num_params, num_trained=layout.num_trained)

    def evaluate(self, parameters: Vector) -> Evaluation | None:
        """Loss and metrics on the validation windows; None when there are none."""
        if self.runtime is None or not len(self.dataset.validation):
            return None
        return self.runtime.evaluate(parameters, self.dataset.validation.thinned(VALIDATION_WINDOWS).all())

    def sent(self, base_version: int) -> None:
        """An update against `base_version` lies in the outbox."""
        self.last_base = base_version
        self._sent_at = time.monotonic()

    def left_to_wait(self, wait_for_version_s: float) -> float:
        """Seconds until another run on the same version is allowed."""
        return max(0.0, self._sent_at + wait_for_version_s - time.monotonic())

    def waited_out(self, wait_for_version_s: float) -> bool:
        """Whether no newer version has come for long enough."""
        return self.left_to_wait(wait_for_version_s) == 0.0
