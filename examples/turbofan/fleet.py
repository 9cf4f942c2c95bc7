"""A whole federation as processes on this machine: broker, aggregator and gateways, each started as a user would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from broker_config.mosquitto import find_mosquitto
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError, FieldfoldError

HERE = Path(__file__).resolve().parent
FEDERATION = "turbofan"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0

AGGREGATOR = """\
federation = "{federation}"
state_dir = "state"
control_socket = "{sockets}/aggregator.sock"
task = "{task}"
{settings}
[broker]
{broker}
messages_per_s = 1000
bytes_per_s = 10_000_000

[normalisation]
nodes = {nodes}
patience_s = 20

[evaluation]
files = ["{data}/test_FD001.txt.gz"]
series = 1
ends = "{data}/RUL_FD001.txt.gz"
windows = "last"
columns = {columns}
"""

NODE = """\
name = "{name}"
federation = "{federation}"
state_dir = "state"
control_socket = "{sockets}/{name}.sock"

[broker]
{broker}

[data]
files = ["{data}/train_FD001.txt.gz"]
series = 1
include_series = {engines}
columns = {columns}

[training]
max_steps_per_s = {max_steps_per_s}
steps_per_update = {steps_per_update}
seed = {seed}

[codec]
profile = "{profile}"
"""

COLUMNS = "{ " + ", ".join(f"s{n} = {n + 5}" for n in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)) + " }"


class Fleet:
    """Writes configurations below `folder` and runs the programs there; use as a context manager.

    Args:
        folder: emptied first.
        bundle: the task.
        engines: gateway -> its engines.
        max_steps_per_s: gateway -> how fast it may train.
        fold: text of the aggregator's `[fold]` and `[release]` tables.
        steps_per_update: of a gateway; 0 for the task's own.
        embedded: use the embedded broker though Mosquitto may be installed.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of the demo or a benchmark
        self,
        folder: Path,
        bundle: Path,
        engines: Mapping[str, tuple[int, ...]],
        max_steps_per_s: Mapping[str, float],
        *,
        fold: str = "",
        profile: str = "balanced",
        steps_per_update: int = 0,
        seed: int = 0,
        embedded: bool = False,
    ) -> None:
        self.folder, self.bundle, self.engines = folder.resolve(), bundle.resolve(), dict(engines)
        self.embedded = embedded or find_mosquitto() is None
        self._pace, self._fold, self._profile, self._seed = dict(max_steps_per_s), fold, profile, seed
        self._steps_per_update = steps_per_update
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # A Unix socket's path may be 107 bytes long; the checkout's may be longer.
        self._sockets = Path(tempfile.mkdtemp(prefix="fieldfold-"))
        self._port = free_port()

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- processes ---------------------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        """Mosquitto with mutual TLS and access rules where it is installed, else the embedded broker."""
        broker = self.folder / "broker"
        nodes = [argument for name in self.engines for argument in ("--node", name)]
        self._complete("broker", "init", str(broker), "--port", str(self._port), *nodes)
        if self.embedded:
            ports = ("--port", str(self._port), "--port-v311", str(free_port()))
            self._spawn("broker", "broker", "run", "--embedded", *ports)
        else:
            self._spawn("broker", "broker", "run", str(broker))
        self._wait("broker", lambda: listens(self._port))

    def start_aggregator(self) -> None:
        """The aggregator, with the task as its first."""
        text = AGGREGATOR.format(
            federation=FEDERATION,
            sockets=self._sockets,
            task=self.bundle,
            settings=self._fold,
            broker=self._broker_table("aggregator"),
            nodes=len(self.engines),
            data=HERE / "data",
            columns=COLUMNS,
        )
        config = self._write("aggregator", text)
        self._spawn("aggregator", "aggregator", "run", "--config", str(config), "--log-level", "warning")
        self._wait("aggregator", lambda: self.aggregator_status() is not None)

    def start_node(self, name: str) -> None:
        """One gateway, new or again."""
        text = NODE.format(
            name=name,
            federation=FEDERATION,
            sockets=self._sockets,
            broker=self._broker_table(name),
            data=HERE / "data",
            engines=list(self.engines[name]),
            columns=COLUMNS,
            max_steps_per_s=self._pace[name],
            steps_per_update=self._steps_per_update,
            seed=self._seed,
            profile=self._profile,
        )
        config = self._write(name, text)
        self._spawn(name, "node", "run", "--config", str(config), "--log-level", "warning")

    def kill(self, name: str) -> None:
        """Ends a program with kill -9."""
        self._processes[name].kill()
        self._processes[name].wait()

    def end(self, name: str) -> None:
        """Ends a program as an operator would, with SIGTERM."""
        self._end([name])

    def stop(self) -> None:
        """Ends everything: gateways first, the broker last."""
        for stage in (list(self.engines), ["aggregator"], ["broker"]):
            self._end(stage)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _end(self, names: list[str]) -> None:
        running = [self._processes[name] for name in names if name in self._processes]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -- what they say -----------------------------------------------------------------------------------------------

    def aggregator_status(self) -> Any:
        """The aggregator's status, None while it does not answer."""
        return self._ask("aggregator")

    def node_status(self, name: str) -> Any:
        """A gateway's status, None while it does not answer."""
        return self._ask(name)

    def socket(self, name: str) -> Path:
        """The control socket of a program."""
        return self._sockets / f"{name}.sock"

    def pid(self, name: str) -> int:
        """The process of a program."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """What a program has said on stderr."""
        path = self._log_path(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def check_alive(self) -> None:
        """Raises when broker or aggregator have ended.

        Raises:
            FieldfoldError: with the last line that the program said.
        """
        for name in ("broker", "aggregator"):
            self._check_alive(name)

    def _check_alive(self, name: str) -> None:
        if self._processes[name].poll() is not None:
            raise FieldfoldError(f"the {name} has ended: {self.log(name).strip()[-300:]}")

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _ask(self, name: str) -> Any:
        try:
            with ControlClient(self.socket(name), timeout_s=5.0) as client:
                return client.status()
        except ControlError:
            return None

    # -- how they are started ----------------------------------------------------------------------------------------

    def _broker_table(self, name: str) -> str:
        url = f"mqtt://127.0.0.1:{self._port}" if self.embedded else f"mqtts://localhost:{self._port}"
        identity = self.folder / "broker" / "identities" / name
        return (
            f'url = "{url}"\nca = "{identity}/ca.crt"\n'
            f'certificate = "{identity}/{name}.crt"\nkey = "{identity}/{name}.key"'
        )

    def _write(self, name: str, text: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        program = "aggregator" if name == "aggregator" else "node"
        path = folder / f"{program}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    def _spawn(self, name: str, *arguments: str, module: str = "fieldfold", **environment: str) -> None:
        with self._log_path(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
            )

    def _complete(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "fieldfold", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise FieldfoldError(f"fieldfold {' '.join(arguments[:2])}: {done.stderr.strip()}")

    def _wait(self, name: str, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_there():
            self._check_alive(name)
            if time.monotonic() > deadline:
                raise FieldfoldError(f"the {name} did not come up in {START_TIMEOUT_S:.0f} s", f"see {self.folder}")
            time.sleep(0.05)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
