"""The whole loop as its users run it: real processes, a real broker, real data; and what kill -9 does to it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.ledger.ledger import Ledger
from examples.turbofan.fleet import FEDERATION
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Received
from fieldfold.wire.messages import ModelManifest, read
from fieldfold.wire.topics import Topics
from tests.broker.loop import PATIENCE_S, LoopFleet
from tests.node_app.turbofan import bundle_file, turbofan

ENGINES = {"gateway-01": (3, 5, 8, 13), "gateway-02": (21, 34, 55, 89), "gateway-03": (1, 4, 9, 16)}
STEPS_PER_S = 20.0
MESSAGE_LIMIT_BYTES = 60 * 1024
TOPICS = Topics(FEDERATION)


class Watcher:
    """Subscribed to everything."""

    def __init__(self, fleet: LoopFleet) -> None:
        self._link = MqttLink(fleet.link_config, client_id="watcher", base=fleet.folder)
        self._link.subscribe("#")
        self._link.start()
        self.messages: list[tuple[str, bytes]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._link.stop()

    def _listen(self) -> None:
        """Takes everything as it comes: the embedded broker has no patience with who does not."""
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                event = self._link.events.get(timeout=0.1)
                if isinstance(event, Received):
                    self._link.ack(event)
                    self.messages.append((event.topic, event.payload))

    def until_told(self, topic: str, *parts: bytes) -> None:
        """Waits until the newest message on a topic has all of these in it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            newest = next((payload for known, payload in reversed(self.messages) if known == topic), b"")
            if all(part in newest for part in parts):
                return
            assert time.monotonic() < deadline, f"{topic} never says {parts!r}, but {newest!r}"
            time.sleep(0.05)

    def manifests(self) -> dict[int, str]:
        """Version -> digest of its parameters, as they were announced."""
        found: dict[int, str] = {}
        for topic, payload in self.messages:
            if topic == TOPICS.model_manifest and payload:
                manifest = read(ModelManifest, payload)
                assert found.setdefault(manifest.version, manifest.parameters) == manifest.parameters
        return found


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopFleet]:
    """Broker, aggregator and three gateways; the tests below find it running and leave it so."""
    folder = tmp_path_factory.mktemp("fleet")
    pace = dict.fromkeys(ENGINES, STEPS_PER_S)
    with LoopFleet(folder, bundle_file(), ENGINES, pace, embedded=request.param == "embedded") as running:
        if not running.embedded:
            running.prepare_broker()
        running.start_broker()
        running.start_aggregator()
        for name in ENGINES:
            running.start_node(name)
        yield running


@pytest.fixture(scope="module")
def watcher(fleet: LoopFleet) -> Iterator[Watcher]:
    made = Watcher(fleet)
    yield made
    made.stop()


def test_the_model_advances_and_everybody_has_a_part_in_it(fleet: LoopFleet, watcher: Watcher) -> None:
    status = fleet.until(
        lambda now: len(now["nodes"]) == 3 and all(node["accepted"] >= 2 for node in now["nodes"]), "not everybody"
    )
    assert status["state"] == "folding"
    assert status["version"] > 1
    assert status["rejected"] == status["malformed"] == 0
    assert [node["node"] for node in status["nodes"]] == sorted(ENGINES)
    assert status["bytes_received"] < status["float32_bytes"] / 10
    fleet.until(lambda now: now["score"], "the held-out data gave no score")
    for name in ENGINES:
        node = fleet.node_status(name)
        assert node["connected"]
        assert status["version"] - 3 <= node["version"] <= status["version"] + 3
    assert watcher.manifests()


def test_a_gateway_that_was_killed_goes_on(fleet: LoopFleet) -> None:
    name = "gateway-02"
    fleet.kill(name)
    before = fleet.advances(3)
    fleet.start_node(name)
    accepted = _node(before, name)["accepted"]
    after = fleet.until(lambda now: _node(now, name)["accepted"] >= accepted + 2, "it does not come back")
    assert after["rejected"] == 0, "it goes on counting where it was"
    status = fleet.node_status(name)
    assert status["version"] >= before["version"]
    assert fleet.log(name) == "", "and has nothing to complain of"


def test_after_a_power_cut_at_every_gateway_the_loop_goes_on(fleet: LoopFleet) -> None:
    for name in ENGINES:
        fleet.kill(name)
    before = fleet.until(lambda status: status["version"], "it has no model")
    for name in ENGINES:
        fleet.start_node(name)
    after = fleet.until(lambda now: now["version"] >= before["version"] + 3, "nobody trains")
    assert after["rejected"] == 0


def test_mosquitto_sub_shows_status_and_receipts_that_can_be_read(fleet: LoopFleet, watcher: Watcher) -> None:
    fleet.until(lambda status: all(node["accepted"] for node in status["nodes"]), "not every gateway was heard")
    watcher.until_told(TOPICS.aggregator_status, b'"state":"folding"', b'"nodes_online":3')
    config = fleet.link_config
    host, port = config.url.partition("://")[2].split(":")
    command = ["mosquitto_sub", "-h", host, "-p", port, "-t", "#", "-v", "-W", "5"]
    if config.ca:
        command += ["--cafile", config.ca, "--cert", config.certificate, "--key", config.key]
    else:
        command += ["-V", "mqttv5"]
    shown = subprocess.run(command, capture_output=True, check=False).stdout.decode("utf-8", errors="replace")
    said: dict[str, Any] = {}
    for line in shown.splitlines():
        topic, _, text = line.partition(" ")
        if text and topic.endswith(("/status", "/receipt", "/manifest")):
            said[topic] = json.loads(text)
    assert said[TOPICS.aggregator_status]["state"] == "folding"
    assert said[TOPICS.aggregator_status]["nodes_online"] == 3
    assert said[TOPICS.model_manifest]["version"] > 1
    for name in ENGINES:
        assert said[TOPICS.status(name)]["metric"] == turbofan().manifest.metrics[0].name
        assert said[TOPICS.status(name)]["score"] > 0
        assert said[TOPICS.receipt(name)]["decision"] == "accepted"


def test_an_aggregator_that_was_killed_goes_on_from_its_ledger_with_the_same_bits(
    fleet: LoopFleet, watcher: Watcher
) -> None:
    task = fleet.advances(2)["task_digest"]
    fleet.kill("aggregator")
    before = _digests(fleet, task)
    fleet.start_aggregator()
    status = fleet.advances(3)
    assert status["version"] > max(before)
    assert status["rejected"] == 0
    fleet.kill("aggregator")
    after = _digests(fleet, task)
    assert before.items() <= after.items()
    fleet.start_aggregator()
    fleet.advances(2)
    for version, parameters in watcher.manifests().items():
        assert after.get(version, parameters) == parameters
    for name in ENGINES:
        assert fleet.node_status(name)["state"] != "needs attention"


def test_no_message_is_larger_than_60_kib(fleet: LoopFleet, watcher: Watcher) -> None:
    kinds = {topic.split("/")[2] if "/node/" not in topic else topic.split("/")[4] for topic, _ in watcher.messages}
    assert {"task", "model", "aggregator", "update", "receipt", "status"} <= kinds
    largest = max(watcher.messages, key=lambda message: len(message[1]))
    assert len(largest[1]) <= MESSAGE_LIMIT_BYTES, largest[0]
    assert fleet.node_status("gateway-01")["connected"]


def _node(status: Any, name: str) -> Any:
    return next(node for node in status["nodes"] if node["node"] == name)


def _digests(fleet: LoopFleet, task: str) -> dict[int, str]:
    """Version -> digest in the ledger that a dead aggregator left behind."""
    ledger = Ledger(fleet.folder / "aggregator" / "state" / "ledger.sqlite", FEDERATION)
    found: dict[int, str] = {}
    while (record := ledger.version(task, len(found))) is not None:
        found[len(found)] = record.parameters
    ledger.close()
    return found


def test_nothing_is_left_running(tmp_path: Path) -> None:
    with LoopFleet(
        tmp_path / "fleet", bundle_file(), {"gateway-01": (3,)}, {"gateway-01": 1.0}, embedded=True
    ) as small:
        small.start_broker()
        small.start_node("gateway-01")
        pids = [small.pid("broker"), small.pid("gateway-01")]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_another_task_is_published_from_the_command_line_and_the_fleet_begins_anew(fleet: LoopFleet) -> None:
    another = Path("examples/turbofan/alone.bundle")
    command = ("task", "publish", str(another), "--socket", str(fleet.socket("aggregator")))
    done = subprocess.run(
        [sys.executable, "-m", "fieldfold", *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "turbofan-alone" in done.stdout
    fleet.until(lambda now: now["task"] == "turbofan-alone" and (now["version"] or 0) >= 1, "nobody learns it")
    assert {fleet.node_status(name)["task"] for name in ENGINES} == {"turbofan-alone"}
