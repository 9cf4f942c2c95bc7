"""What an update costs the aggregator from socket to committed fold, beside Flower and beside moving its vector once.

Real Mosquitto, real wire, the aggregator as a user starts it; the default codec. All figures are processor time of
whole processes, threads and kernel included, so that what else the machine does changes little. Two runs with
different buffers tell apart what an update costs (chunks, ledger, verification, fold) and what a version costs
(quantise, digest, write and publish it): the slope over versions a update is the latter.

Flower runs before and between them, so that both see the same machine, and every figure is of all turns.

The floor is one read and one write of the float32 vector, in vectors that no cache holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.load.deployment import FLOWER
from benchmarks.load.fleet import Counts, VirtualNode, present_run
from benchmarks.load.flower import NODES as NODES_OF_FLOWER
from benchmarks.load.flower import FlowerCost, measure_flower
from benchmarks.load.site import Site
from benchmarks.load.task import payloads
from benchmarks.load.usage import cpu_by_thread_s, cpu_s, median, peak_rss_bytes

FOLDER = Path(".cache/benchmarks/intake")
NODES = 30
IN_FLIGHT = 4
UNLIKE = 30
"""Deltas that are sent, in turn: more than wait for a version at a time, for no two nodes send the same."""
BUFFERS = (10, 20)
"""Distinct nodes that make a version: the default of a fleet of this size, and twice as many."""
WANTED = {1_000_000: 20.0, 10_000_000: 30.0}
WANTED_FLOORS = 4.0
SETTLE_S = 2.0
COLD_BYTES = 512 << 20


class Run(msgspec.Struct, frozen=True):
    """One run: processor time of the aggregator for some updates, and what it was spent on."""

    buffer_size: int
    updates: int
    versions: int
    cpu_ms: float
    broker_cpu_ms: float
    threads_ms: dict[str, float]
    bytes_per_update: int
    peak_rss_mb: float
    wall_s: float


class Cost(msgspec.Struct, frozen=True):
    """Of one model size, in milliseconds of processor time an update; `version_ms` is a released version's."""

    num_params: int
    update_ms: float
    version_ms: float
    all_ms: float
    floor_ms: float
    floors: float
    flower: list[FlowerCost]
    runs: list[Run]

    @property
    def flower_ms(self) -> float:
        """Flower's update beyond what a round costs, over all turns."""
        return sum(each.update_ms for each in self.flower) / len(self.flower)

    @property
    def flower_all_ms(self) -> float:
        """Flower's update with its share of the round."""
        return sum(each.all_ms for each in self.flower) / len(self.flower)


def floor_ms(num_params: int) -> float:
    """One read and one write of the vector, median, in vectors that together are larger than any cache."""
    count = max(2, COLD_BYTES // (4 * num_params))
    vectors = [np.ones(num_params, np.float32) for _ in range(count)]
    spent = []
    for source, target in zip(vectors, vectors[1:] + vectors[:1], strict=True):
        begun = time.thread_time()
        np.copyto(target, source)
        spent.append(1e3 * (time.thread_time() - begun))
    return median(spent)


async def _send_all(nodes: list[VirtualNode], updates: int) -> None:
    """That many updates, at most IN_FLIGHT under way, the nodes in turn; returns when all are answered."""
    queue = [nodes[each % len(nodes)] for each in range(updates)]
    under_way: list[VirtualNode] = []
    while queue or under_way:
        under_way = [node for node in under_way if node.waiting]
        while queue and len(under_way) < IN_FLIGHT and not queue[0].waiting:
            node = queue.pop(0)
            node.send()
            under_way.append(node)
        await asyncio.sleep(0.001)


async def _run(num_params: int, buffer_size: int, updates: int, deltas: list[bytes]) -> Run:
    with Site(FOLDER, num_params, f"[fold]\nmethod = 'rate-corrected-fedbuff'\nbuffer_size = {buffer_size}") as site:
        run, counts = await present_run(site.port), Counts()
        nodes = [VirtualNode(each, run, deltas, counts) for each in range(NODES)]
        for node in nodes:
            await node.connect(site.port, follows=False)
        await _send_all(nodes, NODES)
        await asyncio.sleep(SETTLE_S)
        pid, before = site.pid("aggregator"), site.status()
        threads, broker = cpu_by_thread_s(pid), cpu_s(site.pid("broker"))
        begun_s, bytes_before = time.monotonic(), counts.bytes_sent
        await _send_all(nodes, updates)
        wall_s = time.monotonic() - begun_s
        await asyncio.sleep(SETTLE_S)
        spent = {name: 1e3 * (now - threads.get(name, 0.0)) for name, now in cpu_by_thread_s(pid).items()}
        after = site.status()
        await asyncio.gather(*(node.close() for node in nodes))
        if after["accepted"] - before["accepted"] != updates:
            raise SystemExit(f"{after['accepted'] - before['accepted']} of {updates} accepted: {counts.reasons}")
        return Run(
            buffer_size=buffer_size,
            updates=updates,
            versions=after["version"] - before["version"],
            cpu_ms=sum(spent.values()),
            broker_cpu_ms=1e3 * (cpu_s(site.pid("broker")) - broker),
            threads_ms={name: round(value, 1) for name, value in spent.items() if value > 1},
            bytes_per_update=(counts.bytes_sent - bytes_before) // updates,
            peak_rss_mb=peak_rss_bytes(pid) / 1e6,
            wall_s=wall_s,
        )


def measure(num_params: int, updates: int, *, turns: int, with_flower: bool) -> Cost:
    """Flower and both runs, in turn, and what follows from them."""
    deltas = payloads(num_params, UNLIKE)
    flower: list[FlowerCost] = []
    runs: list[Run] = []
    floors: list[float] = []
    for _ in range(turns):
        if with_flower:
            flower.append(measure_flower(num_params))
        runs += [asyncio.run(_run(num_params, size, updates, deltas)) for size in BUFFERS]
        floors.append(floor_ms(num_params))
    often, seldom = ([run for run in runs if run.buffer_size == size] for size in BUFFERS)
    (often_ms, often_versions), (seldom_ms, seldom_versions) = map(_sums, (often, seldom))
    version_ms = (often_ms - seldom_ms) / max(1, often_versions - seldom_versions)
    update_ms = (often_ms - version_ms * often_versions) / (turns * updates)
    return Cost(
        num_params=num_params,
        update_ms=update_ms,
        version_ms=version_ms,
        all_ms=often_ms / (turns * updates),
        floor_ms=median(floors),
        floors=update_ms / median(floors),
        flower=flower,
        runs=runs,
    )


def _sums(runs: list[Run]) -> tuple[float, int]:
    """Processor time and versions of all."""
    return sum(run.cpu_ms for run in runs), sum(run.versions for run in runs)


def show(cost: Cost) -> None:
    """The table's lines for one size."""
    print(f"{cost.num_params / 1e6:g} M parameters, {cost.runs[0].bytes_per_update / 1e3:.0f} kB an update")
    print(f"  an update, socket to committed fold    {cost.update_ms:9.2f} ms")
    print(f"  a released version                     {cost.version_ms:9.2f} ms")
    print(f"  an update, a version every {BUFFERS[0]}          {cost.all_ms:9.2f} ms")
    print(f"  the vector read and written once       {cost.floor_ms:9.2f} ms   {cost.floors:.1f} times, wanted 4")
    if cost.flower:
        rounds = ", ".join(f"{each.round_ms:.0f} ({each.round_wall_s:.0f} s)" for each in cost.flower)
        print(f"  {FLOWER}, an update beyond its round {cost.flower_ms:9.2f} ms   a round besides {rounds}")
        print(f"  and with its share of a round of {NODES_OF_FLOWER}     {cost.flower_all_ms:9.2f} ms")
        wanted = WANTED.get(cost.num_params, 0.0)
        print(f"  times less than that: {cost.flower_all_ms / cost.update_ms:.0f}, wanted {wanted:.0f};", end="")
        print(f" with our versions {cost.flower_all_ms / cost.all_ms:.0f};", end="")
        print(f" beyond the round {cost.flower_ms / cost.update_ms:.0f}")
    sys.stdout.flush()


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--updates", type=int, default=240)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--no-flower", action="store_true", help="ours only")
    chosen = parser.parse_args()
    costs = []
    for num_params in chosen.sizes:
        cost = measure(num_params, chosen.updates, turns=chosen.turns, with_flower=not chosen.no_flower)
        costs.append(cost)
        show(cost)
    result = {"benchmark": "intake", "wanted_floors": WANTED_FLOORS, "costs": costs}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
