from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.sensors.source import DataConfig
from fieldfold.task.bundle import Bundle
from node_app import daemon as daemon_module
from node_app import learner as learner_module
from node_app.config import CodecConfig, NodeConfig, TrainingConfig
from node_app.daemon import Daemon
from tests.identities import link_config
from tests.node_app.beside import FEDERATION, NODE, Beside
from tests.node_app.running import Running
from tests.node_app.turbofan import data_of, turbofan


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The turbofan example, compiled."""
    return turbofan()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def beside(broker: MemoryBroker) -> Beside:
    return Beside(MemoryLink(broker, client_id="aggregator"))


@pytest.fixture
def running(broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Runs a daemon in a folder of its own; twice in a test is the same node again.

    It looks about more often than in the field.
    """
    monkeypatch.setattr(daemon_module, "TICK_S", 0.05)
    monkeypatch.setattr("node_app.download.FETCH_PATIENCE_S", 0.5)
    monkeypatch.setattr(learner_module, "FIRST_LOOK_S", 0.5)

    @contextmanager
    def run(*, data: DataConfig | None = None, profile: str = "balanced", **training: Any) -> Iterator[Daemon]:
        config = NodeConfig(
            name=NODE,
            federation=FEDERATION,
            broker=link_config(NODE),
            data=data or data_of(3, 5, 8),
            state_dir="state",
            control_socket="node.sock",
            training=TrainingConfig(**training),
            codec=CodecConfig(profile),
        )
        daemon = Daemon(config, tmp_path, MemoryLink(broker, client_id=NODE))
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            thread.join(timeout=10)
            assert not thread.is_alive()

    return run
