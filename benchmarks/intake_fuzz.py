"""Mutated messages at the intake: the aggregator's own service, on a link that holds nothing back.

Honest nodes send beside hostile ones. Mutated envelopes and payloads, chunks out of order, overlapping, duplicated
and never finished, claimed sizes up to 2^64, another node's name inside, replays, floods, absurd norms, topics and
JSON of any kind. Afterwards every update that was sent whole and unchanged must have been accepted, the ledger must
replay bit for bit, and the memory must be what it was when all had been seen once.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import logging
import os
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from aggregator.config import AggregatorConfig
from aggregator.history.audit import verify
from aggregator.ledger.ledger import Ledger
from aggregator.service import Service
from aggregator.verify.update import VerifyConfig
from benchmarks.load.hostile import Hostile
from benchmarks.load.parties import Parties
from benchmarks.load.site import FEDERATION
from benchmarks.load.task import bundle
from benchmarks.load.usage import median, peak_rss_bytes, rss_bytes
from fieldfold.link.session import BrokerLimits, Connected, Delivery, Event, Received, Will
from fieldfold.wire.messages import Receipt, read
from fieldfold.wire.topics import AGGREGATOR, Topics

NUM_PARAMS = 1000
RUN = bytes.fromhex("00000000000000aa")
WINDOW = 256
"""Messages under way at once: as many as share a commit at most."""
WARM_UP = 0.2
"""Share of the messages after which memory is compared with the end."""
SAMPLES = 50
WANTED_GROWTH_MB = 16.0
PATIENCE_S = 120.0


class Outcome(msgspec.Struct, frozen=True):
    """What came of a campaign; `fault` is why the service ended, `lost` counts honest updates that were not taken."""

    messages: int
    seconds: float
    kinds: dict[str, int]
    receipts: dict[str, int]
    malformed: int
    honest: int
    lost: int
    versions: int
    replayed: str
    fault: str
    rss_warm_mb: float
    rss_end_mb: float
    peak_mb: float


class Sent:
    """A `Delivery` that has arrived."""

    def wait(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """True at once."""
        return True


class Funnel:
    """A `Link` whose other end is this process: hands over what it is given and collects the receipts."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.will: Will | None = None
        self.receipts: collections.Counter[str] = collections.Counter()
        self.on_accepted: Callable[[tuple[str, int]], None] = lambda _: None
        self.newest_version = 0
        self._room = threading.Semaphore(WINDOW)
        self._token = 0

    def push(self, topic: str, payload: bytes, patience_s: float = PATIENCE_S) -> bool:
        """Hands a message over as soon as there is room; False when nobody made any."""
        if not self._room.acquire(timeout=patience_s):
            return False
        self._token += 1
        self.events.put(Received(topic, payload, retained=False, token=self._token))
        return True

    def ack(self, message: Received) -> None:  # noqa: ARG002 - one is as good as another
        """Makes room."""
        self._room.release()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,  # noqa: ARG002 - the protocol's signature
        timeout_s: float = 30.0,  # noqa: ARG002 - as above
    ) -> Delivery:
        """Reads the receipts and passes over the rest."""
        if topic.endswith("/receipt"):
            receipt = read(Receipt, payload)
            self.receipts[receipt.code or receipt.decision] += 1
            self.newest_version = max(self.newest_version, receipt.version)
            if receipt.decision == "accepted":
                self.on_accepted((topic.split("/")[-2], receipt.sequence))
        return Sent()

    def drain(self) -> None:
        """Waits until all that was handed over has been acknowledged."""
        for _ in range(WINDOW):
            if not self._room.acquire(timeout=PATIENCE_S):
                return

    def start(self) -> None:
        """Is up at once."""
        self.events.put(Connected(session_present=False, limits=self.limits))

    def stop(self, timeout_s: float = 2.0) -> None:
        """There is nothing to end."""

    def subscribe(self, topic_filter: str, *, queued: bool = True) -> None:
        """Everything comes anyway."""

    def unsubscribe(self, topic_filter: str) -> None:
        """As above."""

    @property
    def limits(self) -> BrokerLimits:
        """The defaults."""
        return BrokerLimits()

    @property
    def is_up(self) -> bool:
        """Always."""
        return True


def configuration(folder: Path, parties: Parties) -> AggregatorConfig:
    """An aggregator in `folder`; nodes may send often enough that not all of it is deferred."""
    task = folder / "task.bundle"
    task.write_bytes(bundle(NUM_PARAMS).data)
    return AggregatorConfig(
        federation=FEDERATION,
        broker=parties.link_config(AGGREGATOR, "mqtt://127.0.0.1:1883"),
        state_dir="state",
        control_socket=str(folder / "control.sock"),
        task=str(task),
        verify=VerifyConfig(max_per_minute=6000),
    )


def campaign(messages: int, seed: int, folder: Path) -> Outcome:
    """Pushes that many messages through a service in a thread of this process."""
    parties = Parties(folder / "identities")
    config, link, faults = configuration(folder, parties), Funnel(), queue.SimpleQueue[str]()
    made: queue.SimpleQueue[Service] = queue.SimpleQueue()

    def serve() -> None:
        try:
            service = Service(config, folder, (link, Funnel()), RUN.hex)
            made.put(service)
            service.run()
        except Exception as error:  # noqa: BLE001 - what comes out here is what the campaign is after
            faults.put(f"{type(error).__name__}: {error}")

    threading.excepthook = lambda ended: faults.put(f"{ended.exc_type.__name__} in {ended.thread}: {ended.exc_value}")
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    service = made.get(timeout=PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S
    while service.status().state != "folding" and time.monotonic() < deadline_s:
        time.sleep(0.01)
    rng = random.Random(seed)  # noqa: S311 - it must repeat, and secures nothing
    hostile = Hostile(NUM_PARAMS, Topics(FEDERATION), RUN, rng, lambda: link.newest_version, parties)
    link.on_accepted = hostile.unanswered.discard
    begun_s, sizes = time.monotonic(), _push_all(hostile, link, messages)
    status = service.status()
    service.stop()
    thread.join(PATIENCE_S)
    fault = "it does not end" if thread.is_alive() else ("" if faults.empty() else faults.get())
    ledger = Ledger(folder / "state" / "ledger.sqlite", FEDERATION)
    finding = verify(ledger, bundle(NUM_PARAMS).digest, lambda _: None)
    ledger.close()
    warm = sizes[int(WARM_UP * len(sizes)) :] or sizes
    return Outcome(
        messages=messages,
        seconds=round(time.monotonic() - begun_s, 1),
        kinds=dict(hostile.kinds),
        receipts=dict(link.receipts),
        malformed=status.malformed,
        honest=hostile.honest,
        lost=len(hostile.unanswered),
        versions=status.version or 0,
        replayed="" if finding.difference is None else finding.difference.what,
        fault=fault,
        rss_warm_mb=median(warm[: len(warm) // 4 + 1]) / 1e6,
        rss_end_mb=median(warm[-len(warm) // 4 :]) / 1e6,
        peak_mb=peak_rss_bytes(os.getpid()) / 1e6,
    )


def _push_all(hostile: Hostile, link: Funnel, messages: int) -> list[int]:
    """Returns resident bytes over time; ends early when nobody takes the messages any more."""
    sizes = []
    every = max(1, messages // SAMPLES)
    for number, (topic, payload) in enumerate(itertools.islice(hostile.messages(), messages)):
        if not link.push(topic, payload):
            break
        if number % every == 0:
            sizes.append(rss_bytes(os.getpid()))
    link.drain()
    return sizes


def main() -> None:
    """Prints a table and the JSON line; exits with 1 when anything broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake_fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=20)
    chosen = parser.parse_args()
    logging.disable(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="fieldfold-fuzz-"))
    try:
        outcome = campaign(chosen.messages, chosen.seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, number in sorted(outcome.kinds.items()):
        print(f"  {name:<24} {number:>9}")
    print(f"receipts {outcome.receipts}, {outcome.malformed} malformed, {outcome.versions} versions")
    print(
        f"{outcome.messages} messages in {outcome.seconds} s: {outcome.lost} of {outcome.honest} honest updates lost;"
        f" memory {outcome.rss_warm_mb:.1f} MB warm, {outcome.rss_end_mb:.1f} at the end,"
        f" {outcome.peak_mb:.1f} at most"
    )
    for what in filter(None, (outcome.fault, outcome.replayed)):
        print(f"BROKEN: {what}")
    result = {"benchmark": "intake_fuzz", "seed": chosen.seed, **msgspec.structs.asdict(outcome)}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.exit(1 if is_broken(outcome) else 0)


def is_broken(outcome: Outcome) -> bool:
    """Whether the intake failed in anything that it promises."""
    grown_mb = outcome.rss_end_mb - outcome.rss_warm_mb
    return bool(outcome.fault or outcome.replayed or outcome.lost or grown_mb > WANTED_GROWTH_MB)


if __name__ == "__main__":
    main()
