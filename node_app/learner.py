"""The one thread that learns: it waits for what is missing, adopts, trains, and fills the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fieldfold.control.recent import Recent
from fieldfold.errors import ControlError, FieldfoldError
from fieldfold.sensors.files import find
from fieldfold.sensors.report import DataReport
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.task.bundle import Bundle
from fieldfold.task.local_training import LocalResult
from node_app.adopt import Served
from node_app.bench import Bench
from node_app.config import NodeConfig
from node_app.follow import Follower, Model
from node_app.loop import Loop
from node_app.memory import give_back
from node_app.progress import Progress
from node_app.records import Adoption, Run, Sample
from node_app.serving import Serving
from node_app.store import Parcel, Store

log = logging.getLogger(__name__)
RETRY_S = 60.0
"""Data that cannot be used is looked at again this often: somebody may have mended it."""
FIRST_LOOK_S = 0.5
"""After a start, a newer model than the stored one is given this long to arrive before training begins."""
OUTBOX_FULL = 8
LOOK_AT_DATA_S = 60.0
"""Before a run, the files' sizes and times are looked at where they were not for this long."""
KEEP_EVERY_S = 60.0
"""Models are written to disk this often and at the end; oftener would wear out the box's flash."""
POINTS_KEPT = 300
"""Runs and adoptions that a screen may draw curves of."""
STALLED_AFTER_S = 3600.0
"""A step or an evaluation may take minutes on a small box, and a bundle's first trial fifty."""


class Learner(Loop):
    """Give it a task and a follower; it does the rest until `stop`.

    Args:
        on_statistics: called with the node's feature sums when its data has been read.
        on_update: called with each update that lies in the outbox.

    Attributes:
        progress, report: what may be shown of its work and of its data.
        runs, adoptions: the newest of them, since the start of the daemon.
    """

    def __init__(
        self,
        config: NodeConfig,
        base: Path,
        store: Store,
        on_statistics: Callable[[FeatureSums], None],
        on_update: Callable[[Parcel], None],
    ) -> None:
        super().__init__("learner", STALLED_AFTER_S, when_idle=give_back)
        self._config, self._base, self._store = config, base, store
        self._on_statistics, self._on_update = on_statistics, on_update
        self._paused = False
        self._trouble = ""
        self._trouble_over = False
        self._task: tuple[Bundle, Follower] | None = None
        self._bench: Bench | None = None
        self._in_hand: tuple[Model, LocalResult] | None = None
        self.progress = Progress()
        self.report: DataReport | None = None
        self.runs: Recent[Run] = Recent(POINTS_KEPT)
        self.adoptions: Recent[Adoption] = Recent(POINTS_KEPT)
        self._started_at = time.monotonic()
        self._kept_at = self._data_seen_at = self._started_at

    # -- from other threads ------------------------------------------------------------------------------------------

    def give_task(self, bundle: Bundle, follower: Follower) -> None:
        """Works on another task from now on."""
        with self._changed:
            self._task = (bundle, follower)
            self._trouble_over = True
            self.wake()

    def set_paused(self, *, paused: bool) -> None:
        """Holds or goes on, in the middle of a run; who says go on does not want to wait for a newer version."""
        with self._changed:
            self._paused = paused
            self._trouble_over = True
            if not paused and self._bench is not None:
                self._bench.wait_no_longer()
            self.wake()

    def serve(self, choose: Callable[[Serving], str]) -> str:
        """Chooses which model predictions are made with, and keeps that on disk.

        Raises:
            FieldfoldError: when there is none to choose, or it cannot be written.
        """
        with self._changed:
            bench, task = self._bench, self._task
            newest = task[1].model if task is not None else None
            if bench is None or newest is None or bench.run is None:
                raise ControlError("no model is served yet", "the first one comes with the first version")
            said = choose(bench.serving)
            self._store.put_pinned(bench.run, pinned=bench.serving.pinned)
            bench.keep(newest)
            self._show_served(bench)
        return said

    def sample(self) -> tuple[Sample, ...]:
        """A training window, for people; none before the data was read."""
        bench = self._bench
        return bench.sample() if bench is not None else ()

    def served(self) -> tuple[Bundle, str, Served]:
        """What predictions are made with: the task, the run in hex, the model.

        Raises:
            ControlError: when there is none yet.
        """
        bench = self._bench
        if bench is None or bench.run is None or bench.serving.served is None:
            raise ControlError("no model is served yet", "the first one comes with the first version")
        return bench.bundle, bench.run, bench.serving.served

    def rejected(self) -> None:
        """The newest update was refused."""
        with self._changed:
            if self._bench is not None:
                self._bench.rejected()
            self.wake()

    @property
    def is_learning(self) -> bool:
        """Whether a newer version would be trained on at once."""
        return self._config.training.enabled and not self._paused and not self._trouble

    # -- the gate that training passes before every step -------------------------------------------------------------

    def passes(self, wait_s: float) -> bool:
        """See train.Gate."""
        self.pulse.beat()
        with self._changed:
            if wait_s > 0:
                self._sleep(self._interrupted, wait_s)
            if self._paused:
                held = self.progress.state
                self._show(state="paused")
                self._sleep(lambda: not self._paused, None)
                self._show(state=held)
            return not self._interrupted()

    def stepped(self, step: int, of: int, loss: float) -> None:
        """See train.Gate."""
        self._show(state="learning", step=step, steps=of, loss=loss)

    def _interrupted(self) -> bool:
        return self._stopping or (
            self._bench is not None and self._task is not None and self._task[0].digest != self._bench.bundle.digest
        )

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._cycle()
            if self._trouble:
                log.info("no longer needs attention")
            self._trouble = ""
        except FieldfoldError as error:
            self._complain(error)

    def _end(self) -> None:
        try:
            newest = self._task[1].model if self._task is not None else None
            if self._bench is not None and newest is not None:
                self._bench.keep(newest)
        except FieldfoldError as error:
            log.error("the model is not kept: %s", error)

    def _complain(self, error: FieldfoldError) -> None:
        """Says what is wrong, once, and tries again after a while, or at once when somebody says `resume`."""
        if self._trouble != str(error):
            log.error("needs attention: %s", error)
        self._trouble = str(error)
        again = f" (looked at again every {RETRY_S:.0f} s, or at once: fieldfold node resume)"
        self._show(state="needs attention", detail=f"{error}{again}")
        with self._changed:
            self._trouble_over = False
            self._sleep(lambda: self._trouble_over, RETRY_S)

    def _cycle(self) -> None:
        """One turn: whatever is missing is waited for, and said."""
        task = self._task
        if self._paused:
            self._wait("paused")
        elif task is None:
            find(self._config.data.files, self._base)  # whoever sets the node up hears at once what is missing
            self._wait("waiting for a task")
        else:
            model = task[1].model
            bench = self._bench_for(task[0], model)
            if model is None:
                self._wait("waiting for the model" if task[1].manifest else "waiting for the fleet's statistics")
            elif not self._caught_up(task[1]):
                self._rest(0.1)
            else:
                self._turn(bench, model)

    def _caught_up(self, follower: Follower) -> bool:
        """Right after a start, a stored model is soon overtaken by what the broker holds."""
        settled = follower.manifest is not None and not follower.has_gap
        return settled or time.monotonic() - self._started_at > FIRST_LOOK_S

    def _bench_for(self, bundle: Bundle, model: Model | None) -> Bench:
        """One for each task and run: two runs may normalise the data differently."""
        bench = self._bench
        other_run = bench is not None and bench.run is not None and model is not None and model.run != bench.run
        if bench is None or bench.bundle.digest != bundle.digest or other_run:
            self._bench, self.report, self._in_hand = None, None, None
            self.progress = Progress(
                state="reading data", updates=self.progress.updates, float32_up=self.progress.float32_up
            )
            bench = Bench(bundle, self._config, self._base, self._store)
            log.info("data read: %s", _windows(bench.report))
            self._bench, self.report = bench, bench.report
            give_back()
            self._on_statistics(bench.sums)
        return bench

    def _turn(self, bench: Bench, model: Model) -> None:
        if self._in_hand is not None:
            self._hand_in(bench, *self._in_hand)
        if bench.adopted is None or bench.adopted.version != model.version:
            self._adopt(bench, model)
        left_s = bench.left_to_wait(model.version)
        if not self._config.training.enabled:
            self._wait("following")
        elif self._store.num_waiting() >= OUTBOX_FULL:
            self._wait("waiting for receipts")
        elif bench.is_far_ahead(model):
            self._wait("waiting for the broker", RETRY_S, "the update that waits holds all that may be trained ahead")
        elif left_s > 0:
            self._wait(
                "waiting for a newer version", left_s, f"trains on this one again in {left_s:.0f} s at the latest"
            )
        elif not self._read_again(bench):
            self._learn(bench, model)

    def _read_again(self, bench: Bench) -> bool:
        """Looks now and then whether the data has changed, and reads it again if so."""
        now = time.monotonic()
        if now - self._data_seen_at < LOOK_AT_DATA_S:
            return False
        self._data_seen_at = now
        if not bench.data_has_changed(now):
            return False
        self._show(state="reading data", detail="")
        bench.read_again()
        self._on_statistics(bench.sums)
        self.report = bench.report
        log.info("the data has changed and was read again: %s", _windows(bench.report))
        give_back()
        return True

    def _adopt(self, bench: Bench, model: Model) -> None:
        bench.adopt(model)
        runtime = bench.runtime(model.normalisation)
        served = bench.serving.served
        version = served.version if served else None
        personal = served is not None and served.personal
        self.adoptions.add(Adoption(time.time(), model.version, bench.global_score, version, personal))
        self._show(
            adopted_version=model.version,
            global_score=bench.global_score,
            runtime=runtime.name,
            device=runtime.device,
            runtime_reason=runtime.reason,
        )
        self._settle(bench, model)

    def _settle(self, bench: Bench, model: Model) -> None:
        """Shows what is served now, and writes it to disk now and then."""
        self._show_served(bench)
        if time.monotonic() - self._kept_at >= KEEP_EVERY_S:
            self._kept_at = time.monotonic()
            bench.keep(model)

    def _show_served(self, bench: Bench) -> None:
        self._show(**bench.serving.shown(), personal_score=bench.personal.score)

    def _learn(self, bench: Bench, model: Model) -> None:
        """Trains and hands in. A result that the disk has no room for is handed in when there is some."""
        self._store.require_room(2 * model.parameters.nbytes)
        self._show(state="learning", detail="", step=0, rests_until=0.0)
        result = bench.train(model, self)
        if result is not None:
            self._in_hand = (model, result)
            self._hand_in(bench, model, result)
            if bench.personal.is_on:
                self._show(state="learning for itself")
                bench.train_personal(model, result.num_steps, self)
                self._settle(bench, model)

    def _hand_in(self, bench: Bench, model: Model, result: LocalResult) -> None:
        parcel = bench.hand_in(model, result)
        self._in_hand = None
        took = (result.train_loss, result.num_steps, result.seconds, len(parcel.body))
        self.runs.add(Run(time.time(), model.version, *took, parcel.sequence, bench.left_out))
        self._show(
            loss=result.train_loss,
            steps_per_s=result.num_steps / max(result.seconds, 1e-9),
            last_update_bytes=len(parcel.body),
            updates=self.progress.updates + 1,
            float32_up=self.progress.float32_up + model.parameters.nbytes,
        )
        if self.progress.updates == 1:
            log.info("the first update of this run lies in the outbox (%d bytes)", len(parcel.body))
            give_back()
        self._on_update(parcel)

    # -- waiting and showing -----------------------------------------------------------------------------------------

    def _wait(self, state: str, seconds: float | None = None, detail: str = "") -> None:
        if self.progress.state != state:
            rests_until = 0.0 if seconds is None else time.monotonic() + seconds
            self._show(state=state, detail=detail, rests_until=rests_until)
        self._rest(seconds)

    def _show(self, **changes: object) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)


def _windows(report: DataReport) -> str:
    train, validation = (report.parts[part].windows for part in ("train", "validation"))
    return f"{train} windows to train on, {validation} to validate"
