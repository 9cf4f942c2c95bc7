"""Broker, aggregator and gateways as processes, to be watched from beside the broker and to be disturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from examples.turbofan.fleet import Fleet
from fieldfold.link.session import LinkConfig

PACKET_LIMIT_BYTES = 131_072
PATIENCE_S = 30.0


class LoopFleet(Fleet):
    """A fleet that can be watched from beside the broker, as its aggregator may."""

    def prepare_broker(self) -> None:
        """A Mosquitto that takes no packet above 128 KiB, as AWS IoT Core does."""
        folder = self.folder / "broker"
        initialise(folder, port=self._port)
        configuration = BrokerFolder(folder).configuration
        text = configuration.read_text(encoding="utf-8")
        limited = text.replace("max_packet_size 1114112", f"max_packet_size {PACKET_LIMIT_BYTES}")
        assert limited != text
        configuration.write_text(limited, encoding="utf-8")

    @property
    def link_config(self) -> LinkConfig:
        if self.embedded:
            return LinkConfig(url=f"mqtt://127.0.0.1:{self._port}")
        files = BrokerFolder(self.folder / "broker").identity("aggregator")
        return LinkConfig(
            url=f"mqtts://localhost:{self._port}",
            ca=str(files.ca),
            certificate=str(files.certificate),
            key=str(files.key),
        )

    def until(self, condition: Callable[[Any], object], what: str) -> Any:
        """The aggregator's status as soon as it is as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            status = self.aggregator_status()
            if status is not None and condition(status):
                return status
            assert time.monotonic() < deadline, f"{what}: {status}\n{self.testimony()}"
            time.sleep(0.05)

    def testimony(self) -> str:
        """What everybody says, for whoever has to find out why it stands still."""
        nodes = [f"{name}: {self.node_status(name)}\n{self.log(name)}" for name in self.engines]
        return "\n".join([self.log("aggregator"), *nodes, self.log("broker")[-3000:]])

    def advances(self, by: int) -> Any:
        """Waits for newer versions."""
        status = self.until(lambda status: status["version"] is not None, "no version came")
        return self.until(lambda now: now["version"] >= status["version"] + by, "the version stands still")
