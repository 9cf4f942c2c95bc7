from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator import service as service_module
from aggregator.config import AggregatorConfig
from aggregator.lease import claim
from fieldfold.link.memory import MemoryBroker
from tests.aggregator.running import RunningAggregator, Witness, eventually


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def witness(broker: MemoryBroker) -> Witness:
    """Somebody who reads everything that crosses the broker."""
    return Witness(broker)


@pytest.fixture
def start(
    tmp_path: Path, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[AggregatorConfig], RunningAggregator]]:
    """Starts an aggregator in this test's folder; it ends with the test."""
    monkeypatch.setattr(service_module, "STORAGE_RETRY_S", 0.05)
    monkeypatch.setattr(service_module, "TICK_S", 0.05)
    monkeypatch.setattr(claim, "LOOK_S", 0.05)
    running: list[RunningAggregator] = []

    def start(config: AggregatorConfig, **settings: Any) -> RunningAggregator:
        aggregator = RunningAggregator(config, tmp_path, broker, **settings)
        running.append(aggregator)
        eventually(lambda: aggregator.status.connected or aggregator.error, "a connection")
        return aggregator

    yield start
    for aggregator in running:
        aggregator.stop()
