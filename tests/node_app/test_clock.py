"""The wall clock may jump as it likes: it is written down in records for people, and nothing is decided by it."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

import fieldfold
import node_app
from fieldfold.link.memory import MemoryBroker
from fieldfold.task.bundle import Bundle
from tests.node_app.beside import NODE, Beside
from tests.node_app.running import Running, joined, until

YEARS_S = 30 * 365 * 86_400.0
WALL_CLOCK = re.compile(r"\btime\.(time|time_ns|gmtime|localtime|ctime)\(|\b(now|utcnow|today)\(|clock_gettime")

CERTIFICATES_EXPIRE = {"doctor.py", "enroll.py", "renewal.py"}
"""By the wall clock: whoever runs the first two looks at what they say, and one that comes too early asks in vain."""
ORDERS_KEYS = {"credentials.py"}
"""Of two keys that one certificate endorses, the later counts; nothing else is decided by it."""


def test_only_records_for_people_read_it() -> None:
    roots = [Path(package.__file__ or "").parent for package in (fieldfold, node_app)]
    files = {path for root in roots for path in root.rglob("*.py")} - set((roots[1] / "tui").rglob("*.py"))
    readers = {path.name for path in files if WALL_CLOCK.search(path.read_text(encoding="utf-8"))}
    assert (
        readers == {"daemon.py", "learner.py", "store.py"} | CERTIFICATES_EXPIRE | ORDERS_KEYS
    )  # the daemon: when its day began


@pytest.fixture
def _jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock shows another year."""
    jumps, real = random.Random(5), time.time
    monkeypatch.setattr(time, "time", lambda: real() + jumps.uniform(-YEARS_S, YEARS_S))


@pytest.mark.usefixtures("_jumping")
def test_a_node_whose_clock_jumps_does_all_that_it_does(
    running: Running, broker: MemoryBroker, beside: Beside, bundle: Bundle
) -> None:
    with running() as daemon:
        joined(beside, bundle)
        for version in range(3):
            update = beside.next_update()
            assert (update[1].sequence, update[1].base_version) == (version + 1, version)
            beside.receipt(update)
            beside.release()
        broker.drop(NODE)
        beside.receipt(beside.next_update(), "stale")
        status = until(daemon, lambda status: status.version == 3 and status.accepted == 3 and status.rejected == 1)
        assert status.uptime_s < 100
    with running(enabled=False) as again:
        assert until(again, lambda status: status.version == 3).accepted == 3
