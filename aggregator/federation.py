"""The present task, its normalisation and its model, and what of them is shown to the nodes."""

from __future__ import annotations

import copy
import logging
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from aggregator.config import AggregatorConfig
from aggregator.fold_settings import FoldSettings
from aggregator.intake import statistics
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision, TaskRecord, VersionRecord
from aggregator.model import GlobalModel
from aggregator.publisher import Publisher
from fieldfold.errors import ControlError, DataError, SignatureError
from fieldfold.sensors.statistics import Normalisation
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import Statistics

log = logging.getLogger(__name__)


def draw_run_id() -> str:
    """A name for a new run, in hex, that no other run has."""
    return secrets.token_hex(8)


class Federation:
    """Owns task, normalisation and model; writes them to the ledger first and shows them afterwards.

    Attributes:
        bundle: the present task, None before the first was published.
        model: None until the task's normalisation is settled.
        score: newest held-out score as (version, value).
        is_held: whether contributions are taken and not folded, until somebody says so.
        unfolded: whether the ledger holds any that are not.
    """

    def __init__(
        self,
        config: AggregatorConfig,
        ledger: Ledger,
        publisher: Publisher,
        draw_run_id: Callable[[], str] = draw_run_id,
    ) -> None:
        self._config, self._ledger, self._publisher = config, ledger, publisher
        self._draw_run_id = draw_run_id
        self.bundle: Bundle | None = None
        self.normalisation: Normalisation | None = None
        self.model: GlobalModel | None = None
        self.score: tuple[int, float] | None = None
        self.statistics_from = 0
        self._statistics_since: float | None = None
        self.is_held = ledger.held_at() is not None
        self.unfolded = False

    # -- coming up ---------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Takes up what the ledger holds; versions that a crash kept from being written are written now.

        Raises:
            StoreError: when the ledger does not replay.
        """
        record = self._ledger.task()
        if record is None:
            return
        self.bundle = Bundle.from_bytes(record.bundle)
        stored = self._ledger.normalisation(record.digest)
        if stored is not None:
            self.normalisation = msgspec.msgpack.decode(stored, type=Normalisation)
        self._count_statistics()
        if self._ledger.checkpoint(record.digest) is None:
            return
        model = self._new_model(self.bundle)
        with self._ledger.transaction():
            replayed = model.restore(self._ledger, self._ledger.held_at())
        self.model = model
        log.info("version %d restored, %d contributions replayed", model.version, replayed)

    def _new_model(self, bundle: Bundle) -> GlobalModel:
        return GlobalModel(bundle, FoldSettings(self._config.method, self._config.release.profile))

    # -- the task and its statistics ---------------------------------------------------------------------------------

    def set_task(self, bundle: Bundle, who: str = "") -> None:
        """Makes `bundle` the present task; nodes that see it begin anew with it."""
        before = f"{self.bundle.manifest.name} ({self.bundle.digest[:16]})" if self.bundle else "none"
        with self._ledger.transaction():
            self._ledger.add_task(TaskRecord(bundle.digest, bundle.manifest.name, bundle.data))
            self._ledger.let_go()
            if who:
                said = f"task {bundle.manifest.name} ({bundle.digest[:16]}) replaces {before}"
                self._ledger.put_operation(who, "publish task", bundle.manifest.name, said)
        log.info("task %s (%s) replaces %s", bundle.manifest.name, bundle.digest[:16], before)
        self.bundle, self.model, self.normalisation, self.score = bundle, None, None, None
        self.statistics_from, self._statistics_since, self.is_held = 0, None, False
        self.restore()
        self._publisher.clear_model(bundle)
        self.show_everything()

    def take_statistics(self, node: str, message: Statistics) -> None:
        """Keeps a node's sums. Within a transaction.

        Raises:
            DataError: when they cannot be sums of any data.
            SignatureError: when newer ones have come.
        """
        if self.bundle is None or message.task != self.bundle.digest:
            raise DataError(f"{node} sent statistics for another task", "it takes the present task by itself")
        if self.normalisation is not None:
            return
        if message.issued < self._ledger.statistics_issued(message.task, node):
            raise SignatureError(
                f"the statistics of {node} are older than what it has sent", "somebody says them again"
            )
        packed = statistics.accept(message, len(self.bundle.manifest.data.numeric))
        self._ledger.put_statistics(message.task, node, packed, message.issued)
        self._count_statistics()

    def _count_statistics(self) -> None:
        if self.bundle is None or self.normalisation is not None:
            return
        self.statistics_from = len(self._ledger.statistics(self.bundle.digest))
        if self.statistics_from and self._statistics_since is None:
            self._statistics_since = time.monotonic()

    def settle_normalisation(self) -> None:
        """Releases normalisation and version 0, together, when enough nodes have sent their sums.

        Raises:
            StoreError: when they cannot be written; to be tried again.
        """
        if self.bundle is None or self.model is not None:
            return
        if self.bundle.manifest.data.normalisation == "none":
            self._begin(self.bundle, None, 0)
            return
        if self._statistics_since is None:
            return
        waited_s = time.monotonic() - self._statistics_since
        if not statistics.is_due(self.statistics_from, waited_s, self._config.normalisation):
            return
        sums = self._ledger.statistics(self.bundle.digest)
        if not sums:
            return
        self._begin(self.bundle, statistics.fuse(sums), len(sums))
        log.info("normalisation settled from the statistics of %d nodes", len(sums))

    def _begin(self, bundle: Bundle, normalisation: Normalisation | None, nodes: int) -> None:
        """Writes and shows version 0."""
        model = self._new_model(bundle)
        with self._ledger.transaction():
            if normalisation is not None:
                self._ledger.put_normalisation(bundle.digest, msgspec.msgpack.encode(normalisation), nodes)
            model.begin(self._ledger, self._draw_run_id())
        self.model, self.normalisation, self._statistics_since = model, normalisation, None
        self._publisher.show_model(model)
        self.show_manifest()

    def checkpoint(self) -> None:
        """At a clean end: the next start need not replay.

        Raises:
            StoreError: when it cannot be written; nothing is lost by that.
        """
        if self.model is not None:
            with self._ledger.transaction():
                self.model.checkpoint(self._ledger)

    # -- folding and showing -----------------------------------------------------------------------------------------

    def fold(self, fresh: Sequence[Decision] = ()) -> bool:
        """Folds what the ledger holds beyond the model and shows what came of it; whether there is a new version.

        Args:
            fresh: some of that, as it was written, so that it need not be read again.

        Raises:
            StoreError: when it cannot be written; the model is as before, to be tried again.
        """
        if self.model is None or self.is_held or not self.unfolded:
            return False
        with self._ledger.transaction():
            model, versions = self._folded(self.model, fresh)
        self.unfolded = False
        return self._show(model, versions)

    def _folded(self, before: GlobalModel, fresh: Sequence[Decision] = ()) -> tuple[GlobalModel, list[VersionRecord]]:
        """A model that has all the ledger holds, and the versions that came of it. Within a transaction."""
        model = copy.copy(before)
        return model, [record for record in model.catch_up(self._ledger, fresh) if record is not None]

    def _show(self, model: GlobalModel, versions: list[VersionRecord]) -> bool:
        self.model = model
        if versions:
            self._publisher.show_versions(model, versions)
        return bool(versions)

    # -- what people ask for -----------------------------------------------------------------------------------------

    def hold(self, who: str) -> str:
        """From now on contributions are taken and not folded.

        Raises:
            FieldfoldError: when there is nothing to hold, or it cannot be written; so below.
        """
        model = self._begun()
        if self.is_held:
            return f"held already, at version {model.version}"
        said = f"the model stays at version {model.version}; updates are taken and wait"
        with self._ledger.transaction():
            self._ledger.hold(model.contribution)
            self._ledger.put_operation(who, "pause", "", said)
        self.is_held = True
        return said

    def let_go(self, who: str) -> str:
        """Folds what has come meanwhile, and goes on."""
        if not self.is_held:
            return "nothing is held"
        waiting = self._num_waiting()
        said = f"goes on with {_updates(waiting)} that waited"
        with self._ledger.transaction():
            self._ledger.let_go()
            self._ledger.put_operation(who, "resume", "", said)
        self.is_held, self.unfolded = False, True
        return said

    def release(self, who: str) -> str:
        """While it is held: folds what has come, once, and stays held there."""
        before = self._begun()
        if not self.is_held:
            raise ControlError("nothing is held: each version is released when it comes", "pause first")
        waiting = self._num_waiting()
        with self._ledger.transaction():
            model, versions = self._folded(before)
            said = f"version {model.version} out of {_updates(waiting)} that waited"
            self._ledger.hold(model.contribution)
            self._ledger.put_operation(who, "release", f"version {model.version}", said)
        self._show(model, versions)
        return said

    def turn_back(self, who: str, version: int) -> str:
        """Releases the parameters of an older version as the next one."""
        before = self._begun()
        if not 0 <= version < before.version:
            raise ControlError(f"there is no version {version} before {before.version}", "name an older one")
        model = copy.copy(before)
        with self._ledger.transaction():
            record = model.write_turn_back(version, self._ledger)
            said = f"version {record.version} is version {version} again"
            self._ledger.put_operation(who, "roll back", f"version {version}", said)
        self._show(model, [record])
        return said

    def _begun(self) -> GlobalModel:
        if self.model is None:
            raise ControlError("there is no model yet", "publish a task, and wait for the gateways' statistics")
        return self.model

    def _num_waiting(self) -> int:
        return self._ledger.num_accepted(self.model.task, self.model.contribution) if self.model else 0

    def show_everything(self) -> None:
        """After a connection: the broker may have lost what it retained."""
        if self.bundle is None:
            return
        self._publisher.show_task(self.bundle)
        if self.model is None:
            self._publisher.clear_model(self.bundle)
        else:
            self._publisher.show_model(self.model)
            self.show_manifest()

    def show_manifest(self) -> None:
        """Publishes the manifest when it has changed, not too often."""
        if self.model is not None:
            self._publisher.show_manifest(self.model, self.normalisation, self.score[1] if self.score else None)

    def note_score(self, task: str, version: int, score: float) -> None:
        """Writes down how a version did on held-out data."""
        if self.model is None or task != self.model.task:
            return
        with self._ledger.transaction():
            self._ledger.put_score(task, version, score)
        self.score = (version, score)
        self._publisher.note_change()


def _updates(count: int) -> str:
    return "1 update" if count == 1 else f"{count} updates"
