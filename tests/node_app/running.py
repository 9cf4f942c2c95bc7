"""A whole node in a thread, over the in-memory broker, and what to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from fieldfold.task.bundle import Bundle
from node_app.daemon import Daemon
from node_app.status import NodeStatus
from tests.node_app.beside import Beside

Running = Callable[..., AbstractContextManager[Daemon]]


def until(daemon: Daemon, condition: Callable[[NodeStatus], object]) -> NodeStatus:
    deadline = time.monotonic() + 20
    while not condition(status := daemon.status()):
        assert time.monotonic() < deadline, f"it did not happen: {status}"
        time.sleep(0.02)
    return status


def says(daemon: Daemon, state: str) -> NodeStatus:
    return until(daemon, lambda status: status.state == state)


def joined(beside: Beside, bundle: Bundle) -> None:
    """Gives the node a task and version 0."""
    beside.say_task(bundle)
    statistics = beside.until(lambda: beside.statistics, "no statistics came")
    beside.begin(bundle, statistics[-1])
