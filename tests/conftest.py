"""Real brokers for every room's tests: Mosquitto as `fieldfold broker` sets it up, and the embedded one.

To annotate a test's parameter: `from tests.conftest import EmbeddedBroker, Mosquitto`.
The session's brokers are shared: choose a federation's name of your own for each test.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from broker_config.mosquitto import command_line, find_mosquitto

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
RUN_COMMAND = (sys.executable, "-c", "from fieldfold.cli.main import main; main()", "broker", "run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest module first: begun late, it would be at work alone while all other workers have ended."""
    items.sort(key=lambda item: "test_zoo" not in item.nodeid)


@dataclass
class Mosquitto:
    """A Mosquitto with mutual TLS and the generated ACL on a loopback port of its own.

    `attended`: as `fieldfold broker run` starts it, with the caretaker beside it.
    """

    directory: Path
    port: int
    attended: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """As a configuration's `[broker] url` has it."""
        return f"mqtts://localhost:{self.port}"

    @property
    def log(self) -> str:
        """What it said so far, over all its restarts."""
        return (self.directory / "log").read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        """The running process, for tests that stop or measure it."""
        assert self._process is not None, "this Mosquitto is not running"
        return self._process.pid

    def identity(self, name: str) -> IdentityFiles:
        """The files of an identity that exists: aggregator, observer, or one that was added."""
        files = BrokerFolder(self.directory).identity(name)
        assert files.key.is_file(), f"{name} has no identity yet: add_identity({name!r})"
        return files

    def add_identity(self, name: str) -> IdentityFiles:
        """The files of the node `name`, made when it has none; the broker need not know."""
        initialise(self.directory, nodes=[name])
        return self.identity(name)

    def start(self) -> None:
        """Starts it, again if need be with the same port, data and identities; returns when it takes connections."""
        program = find_mosquitto()
        if program is None:
            pytest.fail("Mosquitto is not installed: `make test` installs it (apt install mosquitto)", pytrace=False)
        assert self._process is None, "this Mosquitto is running already"
        with (self.directory / "log").open("ab") as log:
            command = (
                [*RUN_COMMAND, str(self.directory)]
                if self.attended
                else command_line(program, BrokerFolder(self.directory))
            )
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _wait_until_listening(self._process, self.port, lambda: self.log)

    def stop(self) -> None:
        """Ends it in good order: sessions, queues and retained messages are on disk."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """kill -9: whatever came since the last autosave is lost."""
        self._end(subprocess.Popen.kill)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            how(process)
            process.wait(STOP_TIMEOUT_S)


@dataclass(frozen=True)
class EmbeddedBroker:
    """The embedded broker, as `fieldfold broker run --embedded` starts it."""

    port: int
    port_v311: int

    @property
    def url(self) -> str:
        """Where it speaks MQTT 5."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def url_v311(self) -> str:
        """Where it speaks MQTT 3.1.1."""
        return f"mqtt://127.0.0.1:{self.port_v311}"


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One Mosquitto for the whole session; do not stop it."""
    with _running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture
def own_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto of this test's own, to stop, kill and start again."""
    with _running_mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(scope="session")
def attended_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One Mosquitto for the whole session with its caretaker, who enrols and revokes; do not stop it."""
    with _running_mosquitto(tmp_path_factory.mktemp("attended"), attended=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """One embedded broker for the whole session."""
    broker = EmbeddedBroker(free_port(), free_port())
    log_path = tmp_path_factory.mktemp("embedded") / "log"
    ports = ("--port", str(broker.port), "--port-v311", str(broker.port_v311))
    with log_path.open("wb") as log:
        process = subprocess.Popen([*RUN_COMMAND, "--embedded", *ports], stdout=log, stderr=log)
    try:
        for port in (broker.port, broker.port_v311):
            _wait_until_listening(process, port, log_path.read_text)
        yield broker
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running_mosquitto(directory: Path, *, attended: bool = False) -> Iterator[Mosquitto]:
    broker = Mosquitto(directory, free_port(), attended)
    initialise(directory, port=broker.port)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        else:
            return
    process.kill()
    process.wait(STOP_TIMEOUT_S)
    pytest.fail(f"the broker does not listen on port {port}; it said:\n{log()}", pytrace=False)
