"""The benchmarks of docs/LOAD.md, short: many nodes at once, and a start on what a kill left unfolded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aggregator.model import replay_is_long
from benchmarks import recovery
from benchmarks.load.fleet import Counts, VirtualNode, present_run
from benchmarks.load.site import Site
from benchmarks.load.task import payloads

NODES = 100
NUM_PARAMS = 1000
PATIENCE_S = 60.0


async def all_at_once(site: Site, times: int) -> Counts:
    run, counts = await present_run(site.port), Counts()
    deltas = payloads(NUM_PARAMS, 4)
    nodes = [VirtualNode(each, run, deltas, counts, site.parties) for each in range(NODES)]
    await asyncio.gather(*(node.connect(site.port, follows=True) for node in nodes))
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(times):
            for node in nodes:
                node.send()
            while any(node.waiting for node in nodes):  # noqa: ASYNC110 - the benchmarks' client tells no event
                await asyncio.sleep(0.01)
    await asyncio.gather(*(node.close() for node in nodes))
    return counts


def test_a_hundred_nodes_that_send_at_once_are_all_heard(tmp_path: Path) -> None:
    with Site(tmp_path / "site", NUM_PARAMS) as site:
        counts = asyncio.run(all_at_once(site, times=3))
        status = site.status()
    assert (counts.accepted, counts.rejected, counts.deferred) == (3 * NODES, 0, 0), counts.reasons
    assert status["accepted"] == 3 * NODES
    assert counts.live_messages >= NODES, "who follows hears every version"


def test_what_a_kill_left_unfolded_is_folded_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "FOLDER", tmp_path / "site")
    found = recovery.measure(NUM_PARAMS, 120)
    assert found.version >= 120 / 10


@pytest.mark.parametrize("num_params", [1, 100_000, 10_000_000])
def test_a_checkpoint_comes_before_there_is_more_to_fold(num_params: int) -> None:
    most = recovery.most_contributions(num_params)
    assert not replay_is_long(most, most // recovery.BUFFER, num_params)
    assert replay_is_long(most + 1, (most + 1) // recovery.BUFFER, num_params)
