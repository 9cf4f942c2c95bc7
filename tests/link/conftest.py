from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldfold.link import reconnect
from fieldfold.link.mqtt import MqttLink
from tests.link.brokers import MemoryWorld, MosquittoWorld, PlainMosquitto, World, plain_link


@pytest.fixture
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links come back after 50 ms instead of a second."""
    monkeypatch.setattr(reconnect, "FIRST_BACKOFF_S", 0.05)


@pytest.fixture(params=["memory", "mosquitto"])
def world(request: pytest.FixtureRequest, tmp_path: Path, _brisk: None) -> Iterator[World]:
    """Each test that asks for it runs on both implementations of the contract."""
    place: World = MemoryWorld() if request.param == "memory" else MosquittoWorld(tmp_path)
    yield place
    place.close()


@pytest.fixture
def plain_mosquitto(tmp_path: Path) -> Iterator[Callable[..., PlainMosquitto]]:
    """Makes Mosquittos that have not started yet; they end with the test."""
    made: list[PlainMosquitto] = []

    def make(*lines: str) -> PlainMosquitto:
        broker = PlainMosquitto(tmp_path / f"broker-{len(made)}", *lines)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def new_link(_brisk: None) -> Iterator[Callable[..., MqttLink]]:
    """`plain_link`, stopped when the test ends."""
    made: list[MqttLink] = []

    def make(*args: Any, **settings: Any) -> MqttLink:
        made.append(plain_link(*args, **settings))
        return made[-1]

    yield make
    for link in made:
        link.stop()
