"""Beside Mosquitto, for as long as it runs: answers who was invited, and has changed rules take effect at once.

Mosquitto is the process that `fieldfold broker run` becomes; the caretaker is its child and reads its log through a
pipe. So the broker does not need the caretaker, and the caretaker ends when the broker has.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from broker_config.enrolment import decide
from broker_config.federation import federation_of
from broker_config.folder import PRIVATE_FOLDER, PUBLIC_FILE, BrokerFolder, replace_file
from broker_config.members import Members, changing, read_members, write_members
from broker_config.mosquitto import Listener
from broker_config.renew import certificate_for, renew
from broker_config.sessions import Sessions
from fieldfold.errors import FieldfoldError
from fieldfold.link.endpoint import resolve
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, Link, LinkConfig, Received, Refused
from fieldfold.link.takeover import end_session
from fieldfold.trust.invitation import EnrolmentRequest, parse, seal
from fieldfold.trust.renewal import RenewalAnswer, RenewalRequest
from fieldfold.wire.topics import ROOT, check_node_name

LOOK_EVERY_S = 0.5
RELOAD_S = 0.5
"""Mosquitto looks at its signals ten times a second, and says nothing of it in the log."""
ONE_REQUEST_IN_S = 0.5
"""Of one invitation or node: each request reads the books, and an honest gateway asks once a second."""
RENEW_EVERY_S = 86_400.0
STARTS_WITHIN_S = 30.0
"""Before it serves, Mosquitto does not mind SIGHUP yet, and would end."""

_LAST_DAY_S = 253_370_764_800  # the year 9999, behind which there are no dates
_ANY_REQUEST = f"{ROOT}/+/enrol/+/request"
_ANY_RENEWAL = f"{ROOT}/+/node/+/renewal"


def start_beside(folder: BrokerFolder, listener: Listener) -> None:
    """Splits off the caretaker and sends this process's stderr through it; to be called before becoming Mosquitto."""
    reading, writing = os.pipe()
    broker = os.getpid()
    sys.stdout.flush()
    if os.fork() == 0:
        os.close(writing)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # the end of the log is our end
        folder.runtime.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        with os.fdopen(reading, encoding="utf-8", errors="replace") as log, folder.caretaker_lock.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Caretaker(folder, listener, broker, sys.stderr).run(log)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, sys.stderr.fileno())
    os.close(writing)


class Caretaker:
    """Reads the broker's log, answers enrolments, reloads what changed, ends the sessions of who was revoked.

    Args:
        folder: the broker's.
        listener: where the broker is reached from this machine.
        broker: process id of Mosquitto.
        out: where the broker's log goes on to.
    """

    def __init__(self, folder: BrokerFolder, listener: Listener, broker: int, out: TextIO) -> None:
        self._folder = folder
        self._broker = broker
        self._out = out
        self._sessions = Sessions()
        self._config = _link_config(folder, listener)
        self._seen: tuple[int, ...] = ()  # so that it reloads once: something may have changed while it started
        self._known: Members = Members()
        self._heard_s: dict[str, float] = {}
        self._complaint = ""
        self._renew_at_s = time.monotonic()
        self._serves_from_s = time.monotonic() + STARTS_WITHIN_S

    def run(self, log: TextIO) -> None:
        """Serves until the log ends."""
        ended = threading.Event()
        threading.Thread(target=self._pump, args=(log, ended), name="log", daemon=True).start()
        with self._said_on_error():
            self._known = read_members(self._folder)
        link: Link = MqttLink(self._config, client_id="fieldfold-broker", base=self._folder.root)
        link.subscribe(_ANY_REQUEST, queued=False)
        link.subscribe(_ANY_RENEWAL, queued=False)
        with self._said_on_error():
            link.start()
        while not ended.is_set():
            with contextlib.suppress(queue.Empty):
                event = link.events.get(timeout=LOOK_EVERY_S)
                if isinstance(event, Connected | Refused):
                    self._serves_from_s = 0.0
                with self._said_on_error():
                    if isinstance(event, Received):
                        link.ack(event)
                        self._hear(link, event)
                    elif isinstance(event, Refused):
                        self._say(f"{event.reason}; {event.hint}")
            with self._said_on_error():
                self._look()
                self._renew_own()
        link.stop()

    # -- enrolment and renewal --

    def _hear(self, link: Link, received: Received) -> None:
        now_s, topic = time.monotonic(), received.topic
        if now_s < self._heard_s.get(topic, -math.inf) + ONE_REQUEST_IN_S:
            return  # the gateway asks again
        # The access rules let each ask under its own name only, so that these are no more than there are.
        self._heard_s = {each: at_s for each, at_s in self._heard_s.items() if now_s < at_s + ONE_REQUEST_IN_S}
        self._heard_s[topic] = now_s
        _, federation, kind, name, _ = topic.split("/")
        if kind == "enrol":
            self._enrol(link, received, federation, name)
        else:
            self._renew(link, received, name)

    def _renew(self, link: Link, received: Received, node: str) -> None:
        request = parse(received.payload, RenewalRequest)
        now = datetime.now(UTC)
        with changing(self._folder.root) as (folder, authority):
            pem = certificate_for(folder, authority, check_node_name(node), now)
        if pem is not None:
            self._say(f"{node}: asks to renew the certificate that ends on {_day(request.expires_s)}")
            answer = msgspec.json.encode(RenewalAnswer(certificate=pem))
            link.publish(received.topic.removesuffix("renewal") + "certificate", answer)

    def _renew_own(self) -> None:
        """What lies beside the broker; its programs read it when they connect next."""
        if time.monotonic() >= self._renew_at_s:
            self._renew_at_s = time.monotonic() + RENEW_EVERY_S
            for name in renew(self._folder.root):
                self._say(f"{name}: its certificate was renewed")

    def _enrol(self, link: Link, received: Received, federation: str, identifier: str) -> None:
        request = parse(received.payload, EnrolmentRequest)
        now = datetime.now(UTC)
        with changing(self._folder.root) as (folder, authority):
            members = read_members(folder)
            invitation = members.invitation(identifier)
            if invitation is None or request.id != identifier or federation != invitation.federation:
                return
            path = folder.enrolled_certificate(invitation.node)
            decided = decide(request, members, path.read_bytes() if path.is_file() else None, authority, now)
            if decided is None:
                return
            if decided.certificate is not None:
                path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
                replace_file(path, decided.answer.certificate.encode("ascii"), PUBLIC_FILE)
            if decided.members is not None:
                write_members(folder, authority, decided.members, now)
        self._say(f"{invitation.node}: {decided.answer.reason or 'enrolled'}")
        self._look()
        answer = seal(decided.answer, bytes.fromhex(invitation.secret))
        link.publish(received.topic.removesuffix("request") + "answer", answer)

    # -- rules that changed --

    def _look(self) -> None:
        if time.monotonic() < self._serves_from_s:
            return
        versions = self._versions()
        if versions != self._seen:
            os.kill(self._broker, signal.SIGHUP)
            time.sleep(RELOAD_S)
            members = read_members(self._folder)
            before = {each.serial for each in self._known.revoked}
            for name in {each.name for each in members.revoked if each.serial not in before}:
                self._end_sessions(name)
                self._forget_queue(name)
            self._seen, self._known = versions, members
        for name in self._known.out:
            self._end_sessions(name)

    def _end_sessions(self, name: str) -> None:
        for client_id in self._sessions.of(name):
            end_session(resolve(self._config, self._folder.root), client_id)
            self._sessions.forget(client_id)
            self._say(f"{name}: its session {client_id!r} was ended")

    def _forget_queue(self, name: str) -> None:
        """A session that nobody is connected to lasts for ever, and what waits in it."""
        with contextlib.suppress(FieldfoldError):
            client_id = f"fieldfold-{federation_of(self._folder)}-{name}"  # as a node calls its own
            end_session(resolve(self._config, self._folder.root), client_id)

    def _versions(self) -> tuple[int, ...]:
        """A new file has another number and another time."""
        files = [path.stat() for path in (self._folder.members, self._folder.crl, self._folder.acl)]
        return tuple(number for file in files for number in (file.st_ino, file.st_mtime_ns))

    # -- the log --

    def _pump(self, log: TextIO, ended: threading.Event) -> None:
        for line in log:
            self._out.write(line)
            self._out.flush()
            self._sessions.read(line.rstrip("\n"))
        ended.set()

    def _say(self, words: str) -> None:
        self._out.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}: fieldfold: {words}\n")
        self._out.flush()

    @contextlib.contextmanager
    def _said_on_error(self) -> Iterator[None]:
        try:
            yield
        except FieldfoldError as error:
            self._complain(str(error))
        except OSError as error:
            self._complain(f"{error.filename or 'the broker'}: {error.strerror}")

    def _complain(self, words: str) -> None:
        """Once, however often it is tried again."""
        if words != self._complaint:
            self._complaint = words
            self._say(words)


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(min(seconds, _LAST_DAY_S), UTC):%Y-%m-%d}"


def _link_config(folder: BrokerFolder, listener: Listener) -> LinkConfig:
    files = folder.identity("broker")
    return LinkConfig(
        url=listener.url,
        ca=str(files.ca),
        certificate=str(files.certificate),
        key=str(files.key),
        session_expiry_s=0,
    )
