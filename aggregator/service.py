"""The composition root: one thread takes events, commits, acknowledges, folds and releases, in that order."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from aggregator.backlog import Backlog
from aggregator.commands import Asked, Desk, Order
from aggregator.config import LEDGER_FILE, AggregatorConfig
from aggregator.evaluation import Scored, Unscored
from aggregator.federation import Federation, draw_run_id
from aggregator.intake.signers import Signers
from aggregator.issuer import Issuer
from aggregator.lease.tenancy import Tenancy
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision
from aggregator.ledger.retention import Retention
from aggregator.ledger.seal import Seal
from aggregator.publisher import Publisher
from aggregator.reception import Reception
from aggregator.records import AggregatorStatus
from aggregator.scoring import Scoring
from aggregator.status import Tally, describe, presence, progress_line
from aggregator.views import Views
from fieldfold.control.protocol import default_socket
from fieldfold.control.server import ControlServer
from fieldfold.errors import StoreError
from fieldfold.link.endpoint import identity
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.outgoing import Outgoing
from fieldfold.link.session import Connected, Disconnected, Link, Received, Refused
from fieldfold.service import Notifier
from fieldfold.task.bundle import Bundle
from fieldfold.trust.credentials import read_authorities
from fieldfold.trust.party import Party
from fieldfold.wire.messages import Command, write
from fieldfold.wire.topics import AGGREGATOR, Topics

log = logging.getLogger(__name__)
BATCH = 256
"""Messages that share one commit; the broker's window is smaller unless it was raised."""
TICK_S = 0.5
STATUS_EVERY_S = 10.0
PROGRESS_EVERY_S = 60.0
RETENTION_EVERY_S = 60.0
STORAGE_RETRY_S = 2.0
"""How often the ledger is tried again that could not be written: a full disk is seldom emptied sooner."""


class Service:
    """One aggregator. `run` returns after `stop` was called, from any thread or a signal handler.

    Args:
        links: the session that bears the federation's name, and one that looks first whether somebody has it.
        take_over: begin although another aggregator is at work, which then ends.

    Raises:
        FieldfoldError: when ledger, socket, task or certificates cannot be used; from `run` also a LeaseError, when
            another aggregator keeps the federation.
    """

    def __init__(
        self,
        config: AggregatorConfig,
        base: Path,
        links: tuple[Link, Link] | None = None,
        draw_run_id: Callable[[], str] = draw_run_id,
        *,
        take_over: bool = False,
    ) -> None:
        self._config, self._base = config, base
        self._topics = Topics(config.federation)
        self._ledger = Ledger(base / config.state_dir / LEDGER_FILE, config.federation)
        self._ledger.seal = Seal(base / config.state_dir)
        self._tally = Tally(self._ledger.counts())
        # What is published, and as far back as an update may have been trained from.
        deltas_kept = max(2 * config.release.snapshot_every, config.verify.max_staleness + 1)
        self._retention = Retention(config.retention, self._ledger, deltas_kept)
        self._tidy_at = 0.0
        files, state = identity(config.broker, base), base / config.state_dir
        self._party = Party(AGGREGATOR, self._topics.aggregator_key, files.certificate, files.key, state)
        self._signer = self._party.signer
        self._issuer = Issuer(self._ledger)
        self._signers = Signers(self._ledger, self._topics, read_authorities(files.ca))
        self._reception = Reception(self._ledger, config.verify, config.max_update_bytes, self._signers.check)
        with self._ledger.transaction():
            self._reception.restore()
        self._link, lookout = links or _links(config, base)
        self._inbox: queue.SimpleQueue[Any] = self._link.events
        status = self._topics.aggregator_status
        self._tenancy = Tenancy(self._link, lookout, status, self._ledger, take_over=take_over)
        self._outgoing = Outgoing(self._link)
        self._outgoing.hold()
        self._federation = Federation(config, self._ledger, self._publisher(), draw_run_id)
        self._federation.restore()
        self._backlog = Backlog(
            self._ledger,
            self._reception,
            self._signers,
            self._federation,
            self._tally,
            link=self._link,
            outgoing=self._outgoing,
            signer=self._signer,
            topics=self._topics,
        )
        self._fresh: list[Decision] = []
        self._scoring = Scoring(config.evaluation, base, self._federation, self._later)
        self._link_state = "connecting"
        self._storage_trouble, self._retry_at = "", 0.0
        self._started_at = self._told_at = time.monotonic()
        self._shown_at, self._shown_state = 0.0, ""
        self._stopping = self._connected_before = False
        self._notifier = Notifier(os.environ)
        socket = base / config.control_socket if config.control_socket else default_socket("aggregator")
        self._desk = Desk(
            self._ledger,
            self._federation,
            self._reception,
            self._tally,
            tell_node=self._tell_node,
            pass_on=self._later,
        )
        views = Views(self._ledger, self._federation).table()
        self._control = ControlServer(socket, self.status, self._desk.commands, views)

    def _publisher(self) -> Publisher:
        return Publisher(
            self._config.release,
            self._ledger,
            self._topics,
            self._outgoing,
            signer=self._signer,
            issue=self._issuer.next,
            message_bytes=lambda: self._link.limits.message_bytes,
        )

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop`."""
        try:
            if self._config.task and self._federation.bundle is None:
                self._federation.set_task(Bundle.read(self._base / self._config.task))
            topics = self._topics
            for every in (topics.every_key, topics.every_update, topics.every_statistics, topics.every_status):
                self._link.subscribe(every)
            self._scoring.look_for_faults()
            self._tenancy.start()
            log.info("aggregator of %s is up, %s", self._config.federation, self._state())
            self._notifier.ready()
            while not self._stopping:
                self._notifier.alive()
                batch = self._next_batch()
                with self._ledger.turn:
                    self._work(batch)
                    self._tick()
            log.info("ending: the ledger holds all that was answered")
        finally:
            self._close()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping = True
        self._inbox.put(None)

    def _close(self) -> None:
        self._notifier.stopping()
        self._control.stop()
        self._desk.stop()
        self._scoring.stop()
        self._tenancy.stop()
        if self._tenancy.is_ours and self._link.is_up:
            self._outgoing.retain(*self._tenancy.farewell())
            self._outgoing.drain(timeout_s=1.0)
        self._outgoing.stop()
        self._link.stop()
        try:
            self._federation.checkpoint()
        except StoreError as error:
            log.error("no checkpoint at the end: %s", error)
        self._ledger.close()

    def _next_batch(self) -> list[Any]:
        """Waits for an event and takes along what else has come."""
        batch = []
        try:
            batch.append(self._inbox.get(timeout=TICK_S))
            while len(batch) < BATCH:
                batch.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _work(self, batch: list[Any]) -> None:
        now = time.monotonic()
        for event in batch:
            if self._tenancy.react(event, now):
                continue
            if isinstance(event, Received):
                self._backlog.add(event)
            elif isinstance(event, Disconnected):
                self._backlog.forget()
                self._outgoing.hold()
        if self._tenancy.tick(now):
            self._show_all()
        if now >= self._retry_at:
            self._save()
        for event in batch:
            try:
                self._react(event)
            except StoreError as error:
                log.error("%s", error)

    def _show_all(self) -> None:
        """The federation is ours, and the broker may have lost all of it."""
        self._outgoing.retain(self._party.topic, self._party.credential())
        self._federation.show_everything()
        self._shown_at = -STATUS_EVERY_S
        self._outgoing.wake()

    def _save(self) -> None:
        """Commit, acknowledge, answer, fold. What cannot be written stays the broker's, and is tried again later."""
        try:
            if self._backlog and self._tenancy.is_ours:
                self._fresh += self._backlog.take()
                self._federation.unfolded |= bool(self._fresh)
            self._federation.settle_normalisation()
            self._federation.fold(self._fresh)
            self._fresh = []
            self._scoring.submit_newest()
        except StoreError as error:
            self._fresh = []  # they are in the ledger, whenever there is room again
            self._retry_at = time.monotonic() + STORAGE_RETRY_S
            self._trouble(str(error))
        else:
            self._trouble("")

    def _trouble(self, reason: str) -> None:
        """Says it, once, when the ledger cannot be written, or can be again."""
        if bool(reason) != bool(self._storage_trouble):
            self._shown_at, self._shown_state = 0.0, ""
            if reason:
                log.error("intake stands still: %s", reason)
            else:
                log.info("intake goes on")
        self._storage_trouble = reason

    def _react(self, event: object) -> None:
        if isinstance(event, Connected):
            self._link_state = f"MQTT {event.limits.protocol}"
            log.info("connected to %s (%s)", self._config.broker.url, self._link_state)
            if not self._connected_before:
                # The broker may have kept our session; what it retains comes only to a new subscription.
                for every in (self._topics.every_key, self._topics.every_status):
                    self._link.unsubscribe(every)
                    self._link.subscribe(every)
            self._connected_before = True
        elif isinstance(event, Disconnected):
            state = f"down: {event.reason}"
            if self._link_state != state:
                self._link_state = state
                log.warning("link down: %s; it is tried again and again, and nothing is lost", event.reason)
        elif isinstance(event, Refused):
            self._link_state = f"refused: {event.reason}; {event.hint}"
            log.error("refused: %s; %s", event.reason, event.hint)
        elif isinstance(event, Scored | Unscored):
            self._scoring.take(event)
        elif isinstance(event, Asked):
            event.do()

    def _tick(self) -> None:
        self._federation.show_manifest()
        now, state = time.monotonic(), self._state()
        if self._tenancy.misread():
            self._shown_at = -STATUS_EVERY_S
        if self._tenancy.is_ours and (state != self._shown_state or now - self._shown_at >= STATUS_EVERY_S):
            self._shown_at, self._shown_state = now, state
            self._outgoing.retain(self._topics.aggregator_status, self._tenancy.sign(presence(self.status())))
        if now >= self._tidy_at:
            self._tidy(now)
        if now - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = now
            log.info("%s", progress_line(self.status()))

    def _tidy(self, now: float) -> None:
        """Drops what nobody will finish and a little of the past, and some more soon if there is."""
        self._tidy_at = now + RETENTION_EVERY_S
        try:
            with self._ledger.transaction():
                self._reception.expire()
            if self._retention.step(time.time(), now):
                self._tidy_at = now
        except StoreError as error:
            log.warning("the past is not dropped now: %s", error)

    # -- status ------------------------------------------------------------------------------------------------------

    def _later(self, event: Asked | Scored | Unscored) -> None:
        self._inbox.put(event)

    def _tell_node(self, node: str, what: Order, asks: str) -> None:
        topic = self._topics.command(node)
        command = Command(issued=self._issuer.next(), command=what, by=f"{asks}, at the aggregator"[:500])
        self._outgoing.send(topic, self._signer.message(topic, write(command)))

    def status(self) -> AggregatorStatus:
        """A frozen picture; may be called from any thread."""
        return describe(
            self._config.federation,
            state=self._state(),
            detail=self._storage_trouble,
            evaluation_trouble=self._scoring.trouble,
            link=self._link_state,
            connected=self._link.is_up,
            term=self._tenancy.term,
            excluded=self._reception.excluded,
            federation=self._federation,
            tally=self._tally,
            bytes_published=self._outgoing.bytes_sent,
            backup=self._desk.backup,
            proof=self._desk.proof,
            uptime_s=time.monotonic() - self._started_at,
        )

    def _state(self) -> str:
        if self._storage_trouble:
            return "storage full"
        if self._federation.bundle is None:
            return "waiting for a task"
        if self._federation.model is None:
            return "waiting for statistics"
        return "paused" if self._federation.is_held else "folding"


def _links(config: AggregatorConfig, base: Path) -> tuple[Link, Link]:
    client_id = f"fieldfold-{config.federation}-aggregator"
    looking = msgspec.structs.replace(config.broker, session_expiry_s=0)
    return (
        MqttLink(config.broker, client_id=client_id, base=base),
        MqttLink(looking, client_id=f"{client_id}-lookout", base=base),
    )
