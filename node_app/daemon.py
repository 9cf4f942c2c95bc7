"""The composition root of the node: link events in, learner and courier at work, status out."""

from __future__ import annotations

import logging
import queue
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

import fieldfold
from fieldfold.control.protocol import default_socket
from fieldfold.control.server import ControlServer
from fieldfold.errors import BundleError, ConfigError, FieldfoldError, WireError
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.outgoing import Outgoing
from fieldfold.link.session import Connected, Disconnected, Link, Received, Refused, Will
from fieldfold.sensors.statistics import FeatureSums, Normalisation
from fieldfold.task.bundle import MAX_BUNDLE_BYTES, Bundle
from fieldfold.trust.tls import check_certificate
from fieldfold.wire.messages import (
    Command,
    ModelManifest,
    NodePresence,
    Receipt,
    Statistics,
    TaskManifest,
    read,
    write,
)
from fieldfold.wire.topics import Topics
from node_app.config import NodeConfig
from node_app.courier import Courier
from node_app.follow import Fetch, Follower, Model
from node_app.learner import Learner
from node_app.status import NodeStatus
from node_app.store import Store

log = logging.getLogger(__name__)
TICK_S = 1.0
STATUS_EVERY_S = 15.0
FETCH_PATIENCE_S = 10.0
"""A fetch that stands still this long is begun again: its topic may have been overwritten while it was read."""
BYTES_PER_PARAMETER = 4


class Daemon:
    """One node. `run` returns after `stop` was called, from any thread or a signal handler.

    Raises:
        FieldfoldError: when store, socket or certificates cannot be used.
    """

    def __init__(self, config: NodeConfig, base: Path, link: Link | None = None) -> None:
        self._config = config
        self._topics = Topics(config.federation)
        self._store = Store(base / config.state_dir / "node.sqlite")
        self._link = link or MqttLink(
            config.broker,
            client_id=f"fieldfold-{config.federation}-{config.name}",
            base=base,
            will=Will(self._topics.status(config.name), write(NodePresence(node=config.name, state="offline"))),
        )
        self._inbox: queue.SimpleQueue[Any] = self._link.events
        self._outgoing = Outgoing(self._link)
        self._courier = Courier(self._store, self._link, self._topics.update(config.name))
        self._learner = Learner(config, base, self._store, self._send_statistics, self._courier.wake)
        self._bundle: Bundle | None = None
        self._follower: Follower | None = None
        self._fetch: Fetch | None = None
        self._fetch_moved_at = 0.0
        self._sums: FeatureSums | None = None
        self._trouble = ""
        self._link_state = "connecting"
        self._connections = 0
        _check_identity(config, base)
        self._bytes_down = 0
        self._last_receipt = ""
        self._started_at = time.monotonic()
        self._shown: tuple[float, str] = (0.0, "")
        self._process = psutil.Process()
        self._stopping = False
        socket = base / config.control_socket if config.control_socket else default_socket("node")
        commands = {"pause": self._pause, "resume": self._resume}
        self._control = ControlServer(socket, self.status, commands)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until `stop`."""
        self._restore()
        for topic in (
            self._topics.task_manifest,
            self._topics.model_manifest,
            self._topics.every_delta,
            self._topics.receipt(self._config.name),
            self._topics.command(self._config.name),
        ):
            self._link.subscribe(topic)
        self._courier.start()
        self._learner.start()
        self._link.start()
        log.info("node %s of %s is up", self._config.name, self._config.federation)
        try:
            while not self._stopping:
                try:
                    event = self._inbox.get(timeout=TICK_S)
                except queue.Empty:
                    event = None
                self._react(event)
                self._tick()
        finally:
            self._close()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping = True
        self._inbox.put(None)

    def _close(self) -> None:
        self._control.stop()
        self._learner.stop()
        self._courier.stop()
        self._outgoing.retain(self._topics.status(self._config.name), write(self._presence("offline")))
        if self._link.is_up:
            self._outgoing.drain(timeout_s=1.0)
        self._outgoing.stop()
        self._link.stop()
        self._store.close()

    def _restore(self) -> None:
        """Begins with the task and the model that the store holds, broker or no broker."""
        data = self._store.bundle()
        if data is None:
            return
        try:
            bundle = Bundle.from_bytes(data)
        except BundleError as error:
            log.error("the stored bundle is of no use, another is fetched: %s", error)
            return
        self._begin(bundle)
        kept = self._store.vector("global", bundle.digest)
        packed = self._store.fact(f"normalisation/{bundle.digest}")
        if kept is not None and self._follower is not None:
            normalisation = msgspec.msgpack.decode(packed, type=Normalisation) if packed else None
            self._follower.start_from(Model(kept.version, kept.values, normalisation))

    def _begin(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._follower = Follower(bundle.digest, manifest.layout.num_params, len(manifest.data.features))
        self._learner.give_task(bundle, self._follower)
        self._trouble = ""
        log.info("task %s (%s), %d parameters", manifest.name, bundle.digest[:16], manifest.layout.num_params)

    # -- events ------------------------------------------------------------------------------------------------------

    def _react(self, event: object) -> None:
        if isinstance(event, Received):
            self._bytes_down += len(event.payload)
            try:
                self._take(event)
            except FieldfoldError as error:
                log.warning("a message on %s is of no use: %s", event.topic, error)
            self._link.ack(event)
        elif isinstance(event, Connected):
            self._connections += 1
            self._link_state = f"MQTT {event.limits.protocol}"
            log.info("connected to %s (%s)", self._config.broker.url, self._link_state)
            self._shown = (0.0, "")
            if self._connections == 1:
                # The broker may have kept our session; what it retains comes only to a new subscription.
                self._subscribe_anew(self._topics.task_manifest, self._topics.model_manifest)
            self._repeat_statistics()
            self._outgoing.wake()
            self._courier.wake()
        elif isinstance(event, Disconnected):
            self._link_state = f"down: {event.reason}"
            log.warning("link down: %s", event.reason)
        elif isinstance(event, Refused):
            self._link_state = f"refused: {event.reason}; {event.hint}"
            log.error("refused: %s; %s", event.reason, event.hint)

    def _take(self, message: Received) -> None:
        topic, payload = message.topic, message.payload
        if not payload:
            return
        if self._fetch is not None and topic.startswith(self._fetch.topic_filter.removesuffix("+")):
            self._take_chunk(self._fetch, payload)
        elif topic == self._topics.task_manifest:
            self._take_task(read(TaskManifest, payload))
        elif topic == self._topics.receipt(self._config.name):
            self._take_receipt(read(Receipt, payload))
        elif topic == self._topics.command(self._config.name):
            self._take_command(read(Command, payload))
        elif self._follower is not None and topic == self._topics.model_manifest:
            self._follower.take_manifest(read(ModelManifest, payload))
            self._learner.wake()
        elif self._follower is not None and topic.startswith(self._topics.every_delta.removesuffix("+/+")):
            self._follower.take_delta(payload)
            self._learner.wake()

    def _take_task(self, manifest: TaskManifest) -> None:
        if self._bundle is not None and manifest.digest == self._bundle.digest:
            return
        if manifest.size_bytes > MAX_BUNDLE_BYTES:
            raise WireError(f"a bundle of {manifest.size_bytes} bytes, at most {MAX_BUNDLE_BYTES} are taken")
        log.info("task %s is announced, fetching %d bytes", manifest.name, manifest.size_bytes)
        self._start_fetch(Fetch(self._topics.bundle(manifest.digest, "+"), manifest.digest, manifest.size_bytes))

    def _take_receipt(self, receipt: Receipt) -> None:
        if not self._store.settle(receipt):
            return
        word = f"update {receipt.sequence} {receipt.decision}"
        self._last_receipt = f"{word}: {receipt.reason}" if receipt.reason else word
        if receipt.decision == "rejected":
            log.warning("%s; %s", self._last_receipt, receipt.hint)
        self._courier.wake()
        self._learner.wake()

    def _take_command(self, command: Command) -> None:
        log.info("%s asks: %s", command.by or "the aggregator", command.command)
        if command.command == "resend_statistics":
            self._repeat_statistics()
        else:
            self._learner.set_paused(paused=command.command == "pause")

    def _subscribe_anew(self, *topics: str) -> None:
        """Has the broker send again what it retains there."""
        for topic in topics:
            self._link.unsubscribe(topic)
            self._link.subscribe(topic)

    # -- fetching retained objects -----------------------------------------------------------------------------------

    def _start_fetch(self, fetch: Fetch) -> None:
        if self._fetch is not None:
            self._link.unsubscribe(self._fetch.topic_filter)
        self._fetch, self._fetch_moved_at = fetch, time.monotonic()
        self._link.subscribe(fetch.topic_filter)

    def _take_chunk(self, fetch: Fetch, payload: bytes) -> None:
        self._fetch_moved_at = time.monotonic()
        data = fetch.take(payload)
        if data is None:
            return
        self._link.unsubscribe(fetch.topic_filter)
        self._fetch = None
        if fetch.topic_filter.startswith(self._topics.task_manifest.removesuffix("manifest")):
            self._take_bundle(fetch.digest, data)
        elif self._follower is not None:
            self._follower.take_snapshot(data)
            self._learner.wake()

    def _take_bundle(self, digest: str, data: bytes) -> None:
        try:
            bundle = Bundle.from_bytes(data)
        except BundleError as error:
            self._trouble = f"the task {digest[:16]} is refused: {error}"
            raise
        self._store.put_bundle(digest, data)
        self._begin(bundle)
        # The manifest and the deltas were passed over while there was no task: have them sent again.
        self._subscribe_anew(self._topics.model_manifest, self._topics.every_delta)

    def _tick(self) -> None:
        now = time.monotonic()
        stuck = now - self._fetch_moved_at > FETCH_PATIENCE_S
        follower = self._follower
        if self._link.is_up and follower is not None:
            if follower.manifest is not None and follower.wants_snapshot and (self._fetch is None or stuck):
                manifest = follower.manifest
                topic_filter = self._topics.snapshot(manifest.snapshot_slot, "+")
                self._start_fetch(Fetch(topic_filter, manifest.snapshot_digest, manifest.snapshot_bytes))
            elif follower.has_gap and self._fetch is None and stuck:
                self._fetch_moved_at = now
                self._subscribe_anew(self._topics.every_delta)
        self._show(now)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _send_statistics(self, sums: FeatureSums) -> None:
        """Called by the learner when the data has been read."""
        self._sums = sums
        self._repeat_statistics()

    def _repeat_statistics(self) -> None:
        """Until a model is here, which shows that they were heard."""
        waiting = self._follower is not None and self._follower.model is None
        if self._sums is None or self._bundle is None or not waiting:
            return
        message = Statistics(
            task=self._bundle.digest,
            count=self._sums.count,
            total=self._sums.total,
            total_of_squares=self._sums.total_of_squares,
        )
        self._outgoing.send(self._topics.statistics(self._config.name), write(message))

    def _show(self, now: float) -> None:
        """Publishes the presence when the state has changed, and now and then."""
        shown_at, state = self._shown
        present = self._learner.progress.state
        lasting = present if present in {"paused", "needs attention"} else "up"
        if self._link.is_up and (lasting != state or now - shown_at >= STATUS_EVERY_S):
            self._shown = (now, lasting)
            self._outgoing.retain(self._topics.status(self._config.name), write(self._presence()))

    def _presence(self, state: str | None = None) -> NodePresence:
        status = self.status()
        return NodePresence(
            node=status.node,
            state=state or status.state,
            detail=status.detail[:500],
            version=status.version,
            software=f"fieldfold {fieldfold.__version__}",
            loss=status.loss,
            score=status.global_score,
            metric=status.metric,
            accepted=status.accepted,
            rejected=status.rejected,
            outbox=status.outbox,
            bytes_up=status.bytes_up,
            bytes_down=status.bytes_down,
            steps_per_s=status.steps_per_s,
        )

    def status(self) -> NodeStatus:
        """A frozen picture; may be called from any thread."""
        progress, follower, bundle = self._learner.progress, self._follower, self._bundle
        model = follower.model if follower else None
        totals = self._store.totals()
        dataset = self._learner.dataset
        return NodeStatus(
            node=self._config.name,
            federation=self._config.federation,
            state="needs attention" if self._trouble else progress.state,
            detail=self._trouble or progress.detail,
            connected=self._link.is_up,
            link=self._link_state,
            task=bundle.manifest.name if bundle else "",
            task_digest=bundle.digest if bundle else "",
            runtime=progress.runtime,
            version=model.version if model else None,
            newest_version=follower.newest if follower and follower.manifest else None,
            served_version=progress.served_version,
            metric=bundle.manifest.metrics[0].name if bundle else "",
            global_score=progress.global_score,
            served_score=progress.served_score,
            loss=progress.loss,
            step=progress.step,
            steps=progress.steps,
            steps_per_s=progress.steps_per_s,
            accepted=totals.accepted,
            rejected=totals.rejected,
            last_receipt=self._last_receipt,
            outbox=self._courier.waiting,
            last_update_bytes=progress.last_update_bytes,
            bytes_up=self._outgoing.bytes_sent + self._courier.bytes_sent,
            bytes_down=self._bytes_down,
            float32_up=progress.updates * BYTES_PER_PARAMETER * (bundle.manifest.layout.num_params if bundle else 0),
            reconnects=max(0, self._connections - 1),
            memory_bytes=self._process.memory_info().rss,
            uptime_s=time.monotonic() - self._started_at,
            data=dataset.report if dataset else None,
        )

    def _pause(self) -> str:
        """The `pause` command."""
        self._learner.set_paused(paused=True)
        return "paused"

    def _resume(self) -> str:
        """The `resume` command; also looks at once again at data that could not be used."""
        self._learner.set_paused(paused=False)
        return "resumed"


def _check_identity(config: NodeConfig, base: Path) -> None:
    """The broker would refuse a node under another name than its certificate's without a word."""
    if not (config.broker.certificate and config.broker.key):
        return
    certificate = base / config.broker.certificate
    name = check_certificate(certificate, base / config.broker.key).common_name
    if name != config.name:
        raise ConfigError(
            f"name is {config.name}, but {certificate} was issued to {name}",
            f"set name to {name}, or give the certificate of {config.name}",
        )
