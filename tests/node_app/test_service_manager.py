"""What systemd sees of a node: when it is up, that it lives, and that it ends when it is asked, whatever it does."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from broker_config.folder import BrokerFolder
from broker_config.initialise import initialise
from fieldfold.sensors.dataset import load
from fieldfold.sensors.statistics import normalisation
from fieldfold.task.bundle import Bundle
from node_app.pulse import Pulse
from node_app.store import Store, StoredVector
from tests.conftest import free_port
from tests.identities import broker_table
from tests.link.brokers import PlainMosquitto
from tests.node_app.process import NodeProcess
from tests.node_app.test_offline import RUN
from tests.node_app.turbofan import data_of

NOBODY = broker_table("press-07")
NEVER_ENDING_STEP = """
import ctypes
from fieldfold.task.onnx_runtime import OnnxRuntime
OnnxRuntime.step = lambda *_, **__: float(ctypes.CDLL(None).sleep(1000))
"""


@pytest.fixture
def knows_the_task(tmp_path: Path, bundle: Bundle) -> None:
    """A store with a task and its version 0, so that the node trains without a broker."""
    with closing(Store(tmp_path / "state" / "node.sqlite")) as store:
        store.put_bundle(bundle.digest, bundle.data)
        scale = normalisation(load(bundle.manifest.data, data_of(3, 5, 8), tmp_path).sums)
        store.put_vector("global", StoredVector(bundle.digest, RUN, 0, bundle.initial_parameters(), scale))


@contextmanager
def mute_server() -> Iterator[int]:
    """Takes connections and says nothing: a TLS handshake with it never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in kept:
            each.close()


def test_it_says_when_it_is_up_and_when_it_ends_and_its_exit_code_is_0(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, NOBODY) as node:
        node.hears("READY=1")
        assert node.ends() == 0
        node.hears("STOPPING=1")
        assert "ending; 0 updates wait" in node.log


def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, NOBODY, watchdog_s=0.5) as node:
        for _ in range(3):
            node.hears("WATCHDOG=1")
        assert node.ends() == 0


@pytest.mark.usefixtures("knows_the_task")
def test_the_watchdog_is_not_fed_when_training_stands_still(tmp_path: Path) -> None:
    impatient = "import node_app.learner\nnode_app.learner.STALLED_AFTER_S = 0.5"
    with NodeProcess(tmp_path, NOBODY, prelude=NEVER_ENDING_STEP + impatient, watchdog_s=0.2) as node:
        node.says("data read")
        node.hears("WATCHDOG=1")
        deadline = time.monotonic() + 30
        while not node.is_silent(1.5):
            assert time.monotonic() < deadline


def test_a_thread_that_rests_is_alive_and_one_that_works_must_beat() -> None:
    pulse = Pulse(limit_s=0.2)
    seen = [pulse.is_live]
    time.sleep(0.3)
    seen.append(pulse.is_live)
    with pulse.resting():
        time.sleep(0.3)
        seen.append(pulse.is_live)
    seen.append(pulse.is_live)
    assert seen == [True, False, True, True]


@pytest.mark.usefixtures("knows_the_task")
def test_a_step_that_takes_minutes_does_not_hold_the_end(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, NOBODY, prelude=NEVER_ENDING_STEP) as node:
        node.says("data read")
        time.sleep(1.0)
        assert node.ends() == 0


@pytest.mark.usefixtures("knows_the_task")
def test_the_trial_of_a_bundle_ends_with_it(tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    endless.chmod(0o755)
    with NodeProcess(tmp_path, NOBODY, prelude=f"import sys\nsys.executable = {str(endless)!r}") as node:
        node.says("data read")
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").is_file():
            assert time.monotonic() < deadline, node.log
            time.sleep(0.05)
        child = int((tmp_path / "pid").read_text())
        assert node.ends() == 0
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_tls_handshake_does_not_hold_the_end(tmp_path: Path) -> None:
    with mute_server() as port:
        initialise(tmp_path / "broker", port=port, nodes=["press-07"])
        files = BrokerFolder(tmp_path / "broker").identity("press-07")
        broker = f'ca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"'
        with NodeProcess(tmp_path, f'url = "mqtts://localhost:{port}"\n{broker}') as node:
            node.hears("READY=1")
            assert node.ends() == 0


@pytest.mark.usefixtures("knows_the_task")
def test_a_broker_that_takes_nothing_more_does_not_hold_the_end(tmp_path: Path) -> None:
    broker = PlainMosquitto(tmp_path / "broker")
    broker.start()
    with NodeProcess(tmp_path, broker_table("press-07", broker.url), training="wait_for_version_s = 0.1") as node:
        node.says("the first update of this run lies in the outbox")
        os.kill(broker.pid, signal.SIGSTOP)
        time.sleep(1.0)
        assert node.ends() == 0
    broker.kill()
    with closing(Store(tmp_path / "state" / "node.sqlite")) as store:
        assert store.notice == ""
        assert store.num_waiting() >= 1


@pytest.mark.usefixtures("knows_the_task")
@pytest.mark.parametrize("killed", [False, True], ids=["asked to end", "killed"])
def test_whenever_it_ends_what_it_has_trained_is_there(tmp_path: Path, *, killed: bool) -> None:
    moments = random.Random(7)
    before = 0
    for turn in range(4):
        with NodeProcess(
            tmp_path, broker_table("press-07", f"mqtt://127.0.0.1:{free_port()}"), training="wait_for_version_s = 0"
        ) as node:
            node.hears("READY=1")
            if turn == 0:
                node.says("the first update of this run lies in the outbox")
            time.sleep(moments.uniform(0.0, 1.5))
            if killed:
                node.kill()
            else:
                assert node.ends() == 0
            assert "Traceback" not in node.log
        with closing(Store(tmp_path / "state" / "node.sqlite")) as store:
            assert store.notice == ""
            assert store.num_waiting() <= 1
            unsent = store.unsent(RUN)
            steps = store.steps_waiting(RUN, 0) + (unsent.steps if unsent else 0)
            assert steps >= max(before, 1)
            before = steps


def test_a_configuration_that_cannot_work_is_exit_code_2(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, 'url = "ftp://127.0.0.1"') as node:
        assert node.exit_code() == 2


def test_a_damaged_store_that_shows_while_it_runs_is_exit_code_6_and_the_next_start_goes_on(tmp_path: Path) -> None:
    spoiled = """
import threading, time
from node_app.database import Database
opened = Database.__init__
def later(database):
    time.sleep(1)
    database.damaged("for the test")
def open_and_spoil(self, *rest):
    opened(self, *rest)
    threading.Thread(target=later, args=(self,), daemon=True).start()
Database.__init__ = open_and_spoil
"""
    with NodeProcess(tmp_path, NOBODY, prelude=spoiled) as node:
        assert node.exit_code() == 6
        assert "started again, the node sets the file aside and begins anew" in node.log
    with NodeProcess(tmp_path, NOBODY) as node:
        node.hears("READY=1")
        node.says("set aside as node.sqlite.damaged-1")
