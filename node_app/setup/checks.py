"""The steps of the first run: enrolment, certificate, broker, task, data. Each is done, and says what it found."""

from __future__ import annotations

import contextlib
import datetime as dt
import queue
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fieldfold.cli.figures import number
from fieldfold.errors import ConfigError, FieldfoldError
from fieldfold.link.endpoint import identity as identity_files
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Disconnected, Link, Received, Refused
from fieldfold.sensors.dataset import load, require_batch
from fieldfold.sensors.files import find
from fieldfold.sensors.report import DataReport
from fieldfold.task.bundle import Bundle
from fieldfold.trust.invitation import read_code
from fieldfold.wire.topics import Topics
from node_app.config import NodeConfig
from node_app.counterpart import Counterpart
from node_app.download import Download
from node_app.setup.answers import Answers, config, identity, is_code, settled
from node_app.store import Store

CONNECTS_WITHIN_S = 15.0
TASK_WITHIN_S = 5.0
BUNDLE_WITHIN_S = 120.0
SHOWN_FEATURES = 40
PREVIEWED = 5


class Finding(msgspec.Struct, frozen=True):
    """What one step came to; `ok` is whether the next one can be taken."""

    ok: bool
    words: str


def look(answers: Answers, base: Path) -> Iterator[Finding]:
    """Takes every step in turn, up to the first that fails; takes seconds."""
    try:
        if is_code(answers.identity):
            yield from enrol(answers, base)
        if folder := settled(answers).identity.strip():
            found = identity(folder, base)
            until = dt.datetime.fromtimestamp(found.expires_s, dt.UTC).date()
            yield Finding(ok=True, words=f"the certificate is that of {found.name}, valid until {until}")
        wanted = config(answers, base)
        yield Finding(ok=True, words=f"{wanted.name} in the federation {wanted.federation}")
        with tempfile.TemporaryDirectory(prefix="fieldfold-") as scratch:
            said, bundle = ask_broker(wanted, base, Path(scratch))
        yield Finding(ok=True, words=said)
        yield from look_at_data(wanted, base, bundle)
    except FieldfoldError as error:
        yield Finding(ok=False, words=str(error))


def enrol(answers: Answers, base: Path) -> Iterator[Finding]:
    """Uses the invitation, as `fieldfold node enroll` does; an identity that it has brought already is taken.

    Raises:
        FieldfoldError: when it cannot be used, or another identity is there.
    """
    invitation, place = read_code(answers.identity), base / settled(answers).identity
    yield Finding(ok=True, words=f"the code invites {invitation.node}, to {invitation.url}")
    if place.is_dir():
        if (name := identity(place.name, base).name) != invitation.node:
            raise ConfigError(f"{place}: is that of {name}, the code for {invitation.node}", "move it away first")
        return
    from node_app.enroll import enroll  # noqa: PLC0415 - as settled

    made = enroll(invitation, base / "node.toml", data="")
    yield Finding(ok=True, words=f"enrolled: the key was made here and stays here, in {made.identity.name}/")


def ask_broker(wanted: NodeConfig, base: Path, scratch: Path) -> tuple[str, Bundle | None]:
    """Connects as the node would, and reads the task, if there is one; gives words, and the task.

    Raises:
        FieldfoldError: when the broker is not reached or refuses.
    """
    broker = msgspec.structs.replace(wanted.broker, session_expiry_s=0)
    link = MqttLink(broker, client_id=f"fieldfold-setup-{wanted.name}", base=base)
    store = Store(scratch / "setup.sqlite")
    topics = Topics(wanted.federation)
    counterpart = Counterpart(store.facts, topics, identity_files(wanted.broker, base).ca)
    download = Download(link, topics, store, counterpart, on_task=lambda *_: None, on_model=lambda: None)
    try:
        download.subscribe()
        link.start()
        connected = _connect(link)
        download.connected(first=True)
        bundle = _task(link, download)
    finally:
        link.stop()
        store.close()
    said = f"{wanted.broker.url} answers, MQTT {connected.limits.protocol}"
    return (f"{said}; the task is {bundle.manifest.name}" if bundle else f"{said}; no task is published yet"), bundle


def _connect(link: Link) -> Connected:
    """Waits for the session; a reason why there is none is the broker's own, or the network's."""
    deadline, reason = time.monotonic() + CONNECTS_WITHIN_S, "it does not answer"
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            event = link.events.get(timeout=left)
            if isinstance(event, Connected):
                return event
            if isinstance(event, Refused):
                raise FieldfoldError(f"the broker refuses: {event.reason}", event.hint)
            if isinstance(event, Disconnected):
                reason = event.reason
                break
    raise FieldfoldError(f"the broker is not reached: {reason}", "look at its address, and whether it runs")


def _task(link: Link, download: Download) -> Bundle | None:
    """The present task; None where none was announced."""
    begun = time.monotonic()
    while download.bundle is None:
        patience_s = BUNDLE_WITHIN_S if download.is_fetching else TASK_WITHIN_S
        if time.monotonic() - begun > patience_s:
            return None
        with contextlib.suppress(queue.Empty):
            event = link.events.get(timeout=0.2)
            if isinstance(event, Received):
                download.take(event.topic, event.payload)
                link.ack(event)
        download.tick()
    return download.bundle


def look_at_data(wanted: NodeConfig, base: Path, bundle: Bundle | None) -> Iterator[Finding]:
    """What the node would read.

    Raises:
        FieldfoldError: when that is of no use.
    """
    files = find(wanted.data.files, base)
    yield Finding(ok=True, words=f"{len(files)} files: {', '.join(list(files)[:3])}{' and more' if files else ''}")
    if bundle is None:
        yield Finding(ok=True, words="what is in them is tested when there is a task")
        return
    schema = bundle.manifest.data
    names = [feature.name for feature in schema.features]
    more = f" and {len(names) - SHOWN_FEATURES} more" if len(names) > SHOWN_FEATURES else ""
    yield Finding(ok=True, words=f"the task wants {', '.join(names[:SHOWN_FEATURES])}{more}")
    dataset = load(schema, wanted.data, base)
    require_batch(dataset, bundle.manifest.batch_size)
    report = dataset.report
    yield Finding(ok=True, words=preview(report))
    yield Finding(
        ok=True,
        words=f"{report.rows:,} rows in {report.series} series; {len(dataset.train):,} windows to train on,"
        f" {len(dataset.validation):,} to validate",
    )


def preview(report: DataReport) -> str:
    """The first features with the values that were read."""
    shown = [f"{each.name} {number(each.minimum)} to {number(each.maximum)}" for each in report.features]
    more = f" and {len(shown) - PREVIEWED} more" if len(shown) > PREVIEWED else ""
    return f"read: {', '.join(shown[:PREVIEWED])}{more}"
