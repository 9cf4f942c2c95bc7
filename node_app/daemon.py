"""The composition root of the node: link events in, learner and courier at work, status out."""

from __future__ import annotations

import logging
import os
import queue
import time
from pathlib import Path
from typing import Any

import fieldfold
from fieldfold.control.protocol import default_socket
from fieldfold.control.server import ControlServer
from fieldfold.errors import FieldfoldError, StoreDamagedError
from fieldfold.link.endpoint import identity, resolve
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.outgoing import Outgoing
from fieldfold.link.session import Connected, Disconnected, Link, Received, Refused, Will
from fieldfold.logs import Tail
from fieldfold.sensors.statistics import FeatureSums
from fieldfold.service import Notifier
from fieldfold.trust.party import Party
from fieldfold.wire.messages import Command, NodePresence, write
from fieldfold.wire.topics import Topics
from node_app.choices import Choices
from node_app.config import NodeConfig
from node_app.counterpart import Counterpart
from node_app.courier import Courier
from node_app.day import Counts, Day
from node_app.download import Download
from node_app.learner import Learner
from node_app.link_state import LinkState
from node_app.machine import Machine
from node_app.own_statistics import OwnStatistics
from node_app.receipts import Receipts
from node_app.records import Drift
from node_app.renewal import Renewal
from node_app.status import NodeStatus, presence
from node_app.store import Parcel, Store
from node_app.views import Views, drift

log = logging.getLogger(__name__)
TICK_S = 1.0
STATUS_EVERY_S = 15.0


class Daemon:
    """One node. `run` returns after `stop` was called, from any thread or a signal handler.

    Raises:
        FieldfoldError: when store, socket or certificates cannot be used.
    """

    def __init__(self, config: NodeConfig, base: Path, link: Link | None = None) -> None:
        files = identity(config.broker, base)
        state = base / config.state_dir
        self._tail = Tail()
        self._config = config
        self._topics = Topics(config.federation)
        self._party = Party(config.name, self._topics.key(config.name), files.certificate, files.key, state)
        self._signer = self._party.signer
        self._store = Store(state / "node.sqlite")
        self._link = link or MqttLink(
            config.broker,
            client_id=f"fieldfold-{config.federation}-{config.name}",
            base=base,
            will=Will(self._topics.status(config.name), write(NodePresence(node=config.name, state="offline"))),
        )
        self._inbox: queue.SimpleQueue[Any] = self._link.events
        self._outgoing = Outgoing(self._link)
        self._counterpart = Counterpart(self._store.facts, self._topics, files.ca)
        updates = self._topics.update(config.name)
        self._courier = Courier(
            self._store, self._link, updates, lambda digest: self._signer.seal(updates, digest), self._is_fresh
        )
        self._learner = Learner(config, base, self._store, self._tell_statistics, self._courier.offer)
        self._download = Download(
            self._link,
            self._topics,
            self._store,
            self._counterpart,
            on_task=self._learner.give_task,
            on_model=self._learner.wake,
        )
        tls = resolve(config.broker, base).tls if config.renew_certificate else None
        self._renewal = Renewal(tls, config.name, self._ask_to_renew)
        self._statistics = OwnStatistics(
            self._topics.statistics(config.name), self._outgoing, self._signer, self._store.facts, self._download
        )
        self._receipts = Receipts(self._store, self._courier, self._learner, self._download, self._statistics)
        self._state = LinkState(config.broker.url)
        self._notifier = Notifier(os.environ)
        self._bytes_down = 0
        self._started_at = time.monotonic()
        self._shown: tuple[float, object] = (0.0, "")
        self._machine = Machine()
        self._day = Day(self._counts(), time.time())
        self._stopping = False
        socket = base / config.control_socket if config.control_socket else default_socket("node")
        commands = {"pause": self._pause, "resume": self._resume, **Choices(self._learner, state).table()}
        views = Views(self._store, self._courier, self._learner, self._tail, self._drift).table()
        self._control = ControlServer(socket, self.status, commands, views)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop`."""
        try:
            self._start()
            while not self._stopping:
                try:
                    event = self._inbox.get(timeout=TICK_S)
                except queue.Empty:
                    event = None
                self._react(event)
                self._tick()
            log.info("ending; %d updates wait in the outbox", self._courier.waiting)
        finally:
            self._close()

    def _start(self) -> None:
        if self._store.notice:
            log.error("%s", self._store.notice)
        self._download.restore()
        self._download.subscribe()
        self._link.subscribe(self._topics.receipt(self._config.name))
        self._link.subscribe(self._topics.command(self._config.name))
        self._link.start()
        self._courier.start()
        self._learner.start()
        self._notifier.ready()
        log.info("node %s of %s is up", self._config.name, self._config.federation)

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping = True
        self._inbox.put(None)

    def _close(self) -> None:
        """Lets every thread know first, then waits for all of them, and not for long."""
        self._notifier.stopping()
        self._learner.stop()
        self._courier.stop()
        self._control.stop()
        if self._link.is_up and not self._store.damage:
            self._outgoing.retain(self._topics.status(self._config.name), write(self._presence("offline")))
            self._outgoing.drain(timeout_s=0.5)
        self._link.stop(timeout_s=1.0)
        self._outgoing.stop()
        self._courier.join(timeout_s=0.5)
        self._learner.join(timeout_s=1.0)
        self._download.keep_pieces()
        self._store.close()
        self._tail.close()

    @property
    def has_ended(self) -> bool:
        """Whether no thread is left that may be in the middle of a model's graph."""
        return not self._learner.is_alive

    # -- events ------------------------------------------------------------------------------------------------------

    def _react(self, event: object) -> None:
        if isinstance(event, Received):
            self._bytes_down += len(event.payload)
            try:
                self._take(event)
            except FieldfoldError as error:
                level = logging.WARNING if self._counterpart.is_known else logging.INFO
                log.log(level, "a message on %s is of no use: %s", event.topic, error)
            self._link.ack(event)
        elif isinstance(event, Connected):
            self._state.connected(event, time.monotonic())
            self._shown = (0.0, "")
            self._outgoing.retain(self._party.topic, self._party.credential())
            self._download.connected(first=self._state.connections == 1)
            self._statistics.repeat()
            self._outgoing.wake()
            self._courier.wake()
        elif isinstance(event, Disconnected):
            self._download.lost()
            self._state.disconnected(event)
        elif isinstance(event, Refused):
            self._state.refused(event)

    def _take(self, message: Received) -> None:
        topic, payload = message.topic, message.payload
        if not payload:
            return
        if topic == self._topics.receipt(self._config.name):
            self._receipts.take(self._counterpart.receipt(topic, payload))
        elif topic == self._topics.command(self._config.name):
            self._take_command(self._counterpart.hear(Command, topic, payload, again=False))
        elif topic == self._topics.certificate(self._config.name):
            self._renewal.take(payload)
        else:
            self._download.take(topic, payload)

    def _is_fresh(self, parcel: Parcel) -> bool:
        """Whether nothing newer is about to replace an update that waited for the link; asked by the courier."""
        newest = self._download.is_newest(parcel.run, parcel.base_version)
        return newest or not self._learner.is_learning

    def _take_command(self, command: Command) -> None:
        log.info("%s asks: %s", command.by or "the aggregator", command.command)
        if command.command == "resend_statistics":
            self._statistics.repeat(asked=True)
        else:
            self._learner.set_paused(paused=command.command == "pause")

    def _tick(self) -> None:
        if not (self._learner.is_alive and self._courier.is_alive):
            raise FieldfoldError("a thread of the node has ended", "the reason stands above; start the node again")
        if self._store.damage:
            raise StoreDamagedError(self._store.damage, "started again, the node sets the file aside and begins anew")
        now = time.monotonic()
        self._download.tick()
        self._state.tick(now)
        self._day.look(self._counts(), time.time())
        if self._learner.pulse.is_live and self._courier.pulse.is_live:
            self._notifier.alive()
        self._statistics.tick(now)
        if self._link.is_up:
            self._renewal.tick(now)
        self._show(now)

    def _ask_to_renew(self, request: bytes) -> None:
        self._link.subscribe(self._topics.certificate(self._config.name), queued=False)
        self._outgoing.send(self._topics.renewal(self._config.name), request)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _tell_statistics(self, sums: FeatureSums) -> None:
        """Called by the learner whenever the data has been read."""
        self._statistics.tell(sums)

    def _show(self, now: float) -> None:
        """Publishes the presence when the state has changed, and now and then."""
        shown_at, shown = self._shown
        progress = self._learner.progress
        present = "needs attention" if self._trouble else progress.state
        lasting = present if present in {"paused", "needs attention"} else "up"
        matter = (lasting, self._download.bundle is None, progress.adopted_version is None)
        if self._link.is_up and (matter != shown or now - shown_at >= STATUS_EVERY_S):
            self._shown = (now, matter)
            self._outgoing.retain(self._topics.status(self._config.name), write(self._presence()))

    def _presence(self, state: str = "") -> NodePresence:
        return presence(self.status(), f"fieldfold {fieldfold.__version__}", state)

    @property
    def _trouble(self) -> str:
        return self._download.trouble or self._state.trouble or self._counterpart.trouble

    def _counts(self) -> Counts:
        totals = self._store.totals()
        return Counts(
            accepted=totals.accepted,
            rejected=totals.rejected,
            bytes_up=self._outgoing.bytes_sent + self._courier.bytes_sent,
            bytes_down=self._bytes_down,
            float32=self._learner.progress.float32_up + self._download.float32_down,
            reconnects=max(0, self._state.connections - 1),
        )

    def status(self) -> NodeStatus:
        """A frozen picture; may be called from any thread."""
        progress, follower, bundle = self._learner.progress, self._download.follower, self._download.bundle
        model = follower.model if follower else None
        counts, now = self._counts(), time.monotonic()
        rests = progress.state == "waiting for a newer version" and progress.rests_until
        return NodeStatus(
            node=self._config.name,
            federation=self._config.federation,
            state="needs attention" if self._trouble else progress.state,
            detail=self._trouble or progress.detail or self._store.notice,
            connected=self._link.is_up,
            link=self._state.words,
            broker=self._state.url,
            link_up_s=None if self._state.up_since is None else now - self._state.up_since,
            round_trip_s=self._courier.round_trip_s,
            task=bundle.manifest.name if bundle else "",
            task_digest=bundle.digest if bundle else "",
            runtime=progress.runtime,
            device=progress.device,
            runtime_reason=progress.runtime_reason,
            version=model.version if model else None,
            newest_version=follower.newest if follower and follower.manifest else None,
            served_version=progress.served_version,
            former_version=progress.former_version,
            pinned=progress.pinned,
            metric=bundle.manifest.metrics[0].name if bundle else "",
            global_score=progress.global_score,
            served_score=progress.served_score,
            served_personal=progress.served_personal,
            personal_score=progress.personal_score,
            loss=progress.loss,
            step=progress.step,
            steps=progress.steps,
            steps_per_s=progress.steps_per_s,
            next_run_s=max(0.0, progress.rests_until - now) if rests else None,
            accepted=counts.accepted,
            rejected=counts.rejected,
            last_receipt=self._receipts.newest,
            outbox=self._courier.waiting,
            last_update_bytes=progress.last_update_bytes,
            fetching=self._download.fetching,
            today=counts.since(self._day.began),
            today_since=self._day.since_s,
            bytes_up=counts.bytes_up,
            bytes_down=counts.bytes_down,
            float32_up=progress.float32_up,
            float32_down=self._download.float32_down,
            reconnects=counts.reconnects,
            memory_bytes=self._machine.memory_bytes,
            cpu_s=self._machine.cpu_s,
            temperature_c=self._machine.temperature_c,
            uptime_s=now - self._started_at,
            log_end=self._tail.entries.end,
            runs_end=self._learner.runs.end,
            adoptions_end=self._learner.adoptions.end,
            data=self._learner.report,
        )

    def _drift(self) -> tuple[Drift, ...]:
        """How this gateway's features lie beside the fleet's statistics."""
        follower, bundle, sums = self._download.follower, self._download.bundle, self._statistics.sums
        model = follower.model if follower else None
        if bundle is None or sums is None or model is None or model.normalisation is None:
            return ()
        return drift(bundle.manifest.data, sums, model.normalisation)

    def _pause(self, asks: str) -> str:
        """The `pause` command."""
        log.info("%s asks: pause", asks)
        self._learner.set_paused(paused=True)
        return "paused"

    def _resume(self, asks: str) -> str:
        """The `resume` command; also looks at once again at data that could not be used."""
        log.info("%s asks: resume", asks)
        self._learner.set_paused(paused=False)
        return "resumed"
