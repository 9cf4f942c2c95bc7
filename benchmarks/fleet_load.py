"""Two thousand connected nodes that each send an update a minute, against a real Mosquitto and the real aggregator.

One process holds all connections (asyncio, MQTT 3.1.1). Every node sends at its own second of the minute, reads its
receipt and goes on from the version that it names; followers hear every release too, as nodes do. Printed every
so often: what was accepted, what waits where, and what each program uses.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.load.fleet import Counts, VirtualNode, present_run
from benchmarks.load.mqtt import Session, connect
from benchmarks.load.site import Site
from benchmarks.load.task import payloads
from benchmarks.load.usage import cpu_s, median, rss_bytes

FOLDER = Path(".cache/benchmarks/fleet_load")
UNLIKE = 64
PING_EVERY_S = 45.0
CONNECTING_AT_ONCE = 50
BROKER_QUEUES = {
    "stored": "$SYS/broker/store/messages/count",
    "dropped": "$SYS/broker/publish/messages/dropped",
    "clients": "$SYS/broker/clients/connected",
}
WANTED_GROWTH = 0.05


class Sample(msgspec.Struct, frozen=True):
    """How everything stands at one moment; processor time is a share of one core since the sample before.

    Attributes:
        waiting: nodes whose receipt has not come: all that is queued anywhere between.
        stored: messages that the broker holds, retained ones included.
        dropped: messages that the broker has dropped since it began.
    """

    at_s: float
    accepted: int
    per_s: float
    waiting: int
    stored: int
    dropped: int
    version: int
    latency_ms: float
    aggregator_mb: float
    aggregator_cpu: float
    broker_cpu: float
    load_cpu: float


class Watch:
    """Takes samples and prints them."""

    def __init__(self, site: Site, counts: Counts) -> None:
        self._site, self._counts = site, counts
        self._begun_s = self._at_s = time.monotonic()
        self._spent = self._cpu()
        self._accepted = 0
        self.broker: dict[str, int] = {}
        self.samples: list[Sample] = []

    def _cpu(self) -> list[float]:
        return [cpu_s(pid) for pid in (self._site.pid("aggregator"), self._site.pid("broker"), os.getpid())]

    def heard(self, topic: str, payload: bytes) -> None:
        """Takes what the broker says of itself."""
        for name, each in BROKER_QUEUES.items():
            if topic == each:
                self.broker[name] = int(payload)

    def take(self) -> Sample:
        """One sample, since the one before."""
        now_s, spent, counts = time.monotonic(), self._cpu(), self._counts
        passed_s = now_s - self._at_s
        shares = [(after - before) / passed_s for after, before in zip(spent, self._spent, strict=True)]
        sample = Sample(
            at_s=round(now_s - self._begun_s, 1),
            accepted=counts.accepted,
            per_s=round((counts.accepted - self._accepted) / passed_s, 1),
            waiting=counts.sent - counts.accepted - counts.rejected - counts.deferred,
            stored=self.broker.get("stored", 0),
            dropped=self.broker.get("dropped", 0),
            version=counts.newest_version,
            latency_ms=round(1e3 * median(counts.latencies_s), 1) if counts.latencies_s else 0.0,
            aggregator_mb=round(rss_bytes(self._site.pid("aggregator")) / 1e6, 1),
            aggregator_cpu=round(shares[0], 3),
            broker_cpu=round(shares[1], 3),
            load_cpu=round(shares[2], 3),
        )
        counts.latencies_s.clear()
        self._at_s, self._spent, self._accepted = now_s, spent, counts.accepted
        self.samples.append(sample)
        return sample


async def _connect_all(nodes: list[VirtualNode], port: int, followers: int) -> None:
    for start in range(0, len(nodes), CONNECTING_AT_ONCE):
        some = enumerate(nodes[start : start + CONNECTING_AT_ONCE], start)
        await asyncio.gather(*(node.connect(port, follows=number < followers) for number, node in some))


async def _send_for_ever(node: VirtualNode, every_s: float, first_s: float) -> None:
    """An update every so often; one whose receipt has not come is not overtaken."""
    await asyncio.sleep(first_s)
    due_s = time.monotonic()
    while True:
        if not node.waiting:
            node.send()
        due_s += every_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def _ping_for_ever(sessions: list[Session]) -> None:
    while True:
        await asyncio.sleep(PING_EVERY_S)
        for session in sessions:
            session.ping()


async def load(chosen: argparse.Namespace) -> tuple[list[Sample], Counts]:
    """The whole run; prints a line a sample."""
    with Site(FOLDER, chosen.num_params) as site:
        run, counts = await present_run(site.port), Counts()
        deltas = payloads(chosen.num_params, UNLIKE)
        nodes = [VirtualNode(each, run, deltas, counts, site.parties) for each in range(chosen.nodes)]
        await _connect_all(nodes, site.port, chosen.followers)
        watch = Watch(site, counts)
        system = await connect(site.port, "load-watch", watch.heard, *((each, 0) for each in BROKER_QUEUES.values()))
        tasks = [
            asyncio.create_task(_send_for_ever(node, chosen.every_s, chosen.every_s * number / chosen.nodes))
            for number, node in enumerate(nodes)
        ]
        sessions = [system, *(node.session for node in nodes if node.session is not None)]
        tasks.append(asyncio.create_task(_ping_for_ever(sessions)))
        print(f"{len(nodes)} nodes connected, {chosen.followers} follow; {len(deltas[0])} bytes an update")
        for _ in range(round(60 * chosen.minutes / chosen.sample_s)):
            await asyncio.sleep(chosen.sample_s)
            print(_line(watch.take()), flush=True)
        lost = sum(session.lost for session in sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in sessions))
        if lost or counts.rejected:
            print(f"{lost} connections lost, {counts.rejected} rejected: {dict(counts.reasons)}")
        return watch.samples, counts


def _line(sample: Sample) -> str:
    return (
        f"{sample.at_s:6.0f} s  {sample.per_s:5.1f}/s accepted  {sample.latency_ms:7.1f} ms to the receipt"
        f"  {sample.waiting:4} waiting  {sample.stored:5} at the broker  {sample.dropped:3} dropped"
        f"  v{sample.version:<6}"
        f"  aggregator {sample.aggregator_mb:6.1f} MB {sample.aggregator_cpu:5.2f}"
        f"  broker {sample.broker_cpu:4.2f}  load {sample.load_cpu:4.2f} of a core"
    )


def growth(samples: list[Sample], warm_up_s: float) -> float:
    """Of the aggregator's memory from the end of the warm-up to the end, as a share; medians of a minute each."""
    warm = [sample for sample in samples if sample.at_s >= warm_up_s] or samples[-1:]
    first, last = warm[0].at_s + 60, warm[-1].at_s - 60
    before = median(sample.aggregator_mb for sample in warm if sample.at_s <= first)
    after = median(sample.aggregator_mb for sample in warm if sample.at_s >= last)
    return after / before - 1


def main() -> None:
    """Prints the run and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--followers", type=int, help="nodes that hear the releases; all unless given")
    parser.add_argument("--num-params", type=int, default=100_000)
    parser.add_argument("--every-s", type=float, default=60.0)
    parser.add_argument("--sample-s", type=float, default=10.0)
    parser.add_argument("--warm-up-s", type=float, default=120.0)
    chosen = parser.parse_args()
    chosen.followers = chosen.nodes if chosen.followers is None else chosen.followers
    needed = chosen.nodes + 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        parser.error(f"{needed} open files are needed, {hard} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, 4096), hard))
    samples, counts = asyncio.run(load(chosen))
    grown = growth(samples, chosen.warm_up_s)
    print(
        f"{counts.accepted} accepted of {counts.sent} sent; memory {100 * grown:+.1f} % after"
        f" {chosen.warm_up_s:.0f} s (wanted under {100 * WANTED_GROWTH:.0f} %);"
        f" {counts.live_bytes / 1e6:.0f} MB of releases heard"
    )
    result = {
        "benchmark": "fleet_load",
        **{key: getattr(chosen, key) for key in ("nodes", "followers", "num_params", "every_s", "minutes")},
        "sent": counts.sent,
        "accepted": counts.accepted,
        "rejected": counts.rejected,
        "deferred": counts.deferred,
        "growth": grown,
        "samples": samples,
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
