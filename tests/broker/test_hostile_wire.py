"""Mutated messages over a real Mosquitto into the real program: it goes on, and ends as it should."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from pathlib import Path

from benchmarks.load.fleet import TOPICS, Counts, VirtualNode, present_run
from benchmarks.load.hostile import Hostile
from benchmarks.load.mqtt import connect
from benchmarks.load.site import Site
from benchmarks.load.task import payloads
from benchmarks.load.usage import rss_bytes

MESSAGES = 1500
NUM_PARAMS = 1000
LARGEST_BYTES = 160_000_000
PATIENCE_S = 60.0


async def attack(site: Site, seed: int) -> Counts:
    """Sends them all, and honest updates of another node afterwards."""
    run, counts = await present_run(site.port), Counts()
    node = VirtualNode(0, run, payloads(NUM_PARAMS, 2), counts, site.parties)
    await node.connect(site.port, follows=False)
    hostile = Hostile(NUM_PARAMS, TOPICS, run, random.Random(seed), lambda: counts.newest_version, site.parties)
    session = await connect(site.port, "attacker", lambda *_: None)
    for topic, payload in itertools.islice(hostile.messages(), MESSAGES):
        if topic:
            session.publish(topic, payload)
        while session.unacknowledged > 40:  # noqa: ASYNC110 - the benchmarks' client tells no event
            await asyncio.sleep(0.001)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            node.send()
            while node.waiting:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
    await asyncio.gather(session.close(), node.close())
    return counts


def test_mutated_messages_through_a_broker(tmp_path: Path) -> None:
    with Site(tmp_path / "site", NUM_PARAMS) as site:
        counts = asyncio.run(attack(site, seed=3))
        status, pid = site.status(), site.pid("aggregator")
        assert (counts.accepted, counts.rejected) == (3, 0), counts.reasons
        assert status["state"] == "folding"
        assert status["malformed"] > 0
        assert rss_bytes(pid) < LARGEST_BYTES
        os.kill(pid, signal.SIGTERM)
        assert site.wait("aggregator") == 0, site.log("aggregator")[-2000:]
        assert "Traceback" not in site.log("aggregator")
