"""What a user would pick today on the same machine: Flower in deployment mode, float32, its FedAvg, no torch.

SuperLink, SuperNodes and one ServerApp that runs a few rounds with a tiny model, which show what a round costs
whatever its size, and then a few with the model asked for. Counted is the processor time of SuperLink and all that
descends from it. Installed once into a virtual environment below .cache/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil

from examples.turbofan.fleet import free_port
from fieldfold.errors import FieldfoldError

FLOWER = "flwr==1.41.*"
ENVIRONMENT = Path(".cache/flower/venv")
FOLDER = Path(".cache/benchmarks/flower")
NODES = 3
ROUNDS = 3
TINY = 1000
"""Parameters of the rounds that are nothing but overhead."""
PATIENCE_S = 1500.0
LOOK_EVERY_S = 0.05
END_TIMEOUT_S = 10.0

APP = """\
[project]
name = "beside"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "benchmarks"

[tool.flwr.app.components]
serverapp = "beside.server:app"
clientapp = "beside.client:app"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""

SERVER = """\
import time
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    for size in {sizes}:
        def mark(server_round, arrays):
            with open("{marks}", "a") as file:
                file.write(f"{{size}} {{server_round}}\\n")
        strategy = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes={nodes}, min_available_nodes={nodes}
        )
        start = ArrayRecord([np.zeros(size, np.float32)])
        strategy.start(grid=grid, initial_arrays=start, num_rounds={rounds}, evaluate_fn=mark)
"""

CLIENT = """\
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    arrays = ArrayRecord([model + np.float32(1e-3)])
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
"""


class FlowerCost(msgspec.Struct, frozen=True):
    """Processor milliseconds of all server-side processes: an update beyond what a round costs, and that round."""

    update_ms: float
    round_ms: float
    round_wall_s: float

    @property
    def all_ms(self) -> float:
        """An update with its share of the round."""
        return self.update_ms + self.round_ms / NODES


def measure_flower(num_params: int) -> FlowerCost:
    """Starts it, lets it run its rounds, and ends it.

    Raises:
        FieldfoldError: when it does not install, or does not run to its end.
    """
    _install()
    shutil.rmtree(FOLDER, ignore_errors=True)
    sizes = [TINY, num_params]
    marks = _write_app(sizes)
    with ExitStack() as stack:
        ports = [free_port() for _ in range(NODES + 1)]
        link = stack.enter_context(
            _running("superlink", "flower-superlink", "--insecure", "--port", str(ports[0]),
                     "--disable-runtime-dependency-installation")
        )  # fmt: skip
        _connection(ports[0])
        for number, port in enumerate(ports[1:]):
            arguments = ("--insecure", "--superlink", f"127.0.0.1:{ports[0]}", "--port", str(port))
            stack.enter_context(_running(f"supernode-{number}", "flower-supernode", *arguments))
        with _running("run", "flwr", "run", str(FOLDER / "app"), "beside") as run:
            run.wait(60)
        rounds = _watch(link.pid, marks, sizes)
    (tiny_ms, _), (round_ms, wall_s) = rounds[TINY], rounds[num_params]
    return FlowerCost((round_ms - tiny_ms) / NODES, tiny_ms, wall_s)


def _install() -> None:
    if (ENVIRONMENT / "bin" / "flower-superlink").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    command = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", FLOWER]
    if subprocess.run(command, check=False).returncode:
        raise FieldfoldError(f"{FLOWER} does not install into {ENVIRONMENT}", "use --no-flower")


def _write_app(sizes: list[int]) -> Path:
    source = FOLDER / "app" / "beside"
    source.mkdir(parents=True)
    marks = FOLDER.resolve() / "marks"
    marks.touch()
    (FOLDER / "app" / "pyproject.toml").write_text(APP, encoding="utf-8")
    server = SERVER.format(sizes=sizes, marks=marks, nodes=NODES, rounds=ROUNDS)
    for name, text in {"__init__": "", "server": server, "client": CLIENT}.items():
        (source / f"{name}.py").write_text(text, encoding="utf-8")
    return marks


def _connection(port: int) -> None:
    home = FOLDER / "home"
    home.mkdir(exist_ok=True)
    text = f'[superlink]\ndefault = "beside"\n[superlink.beside]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(text, encoding="utf-8")
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s and not _has_said("superlink", "running on"):
        time.sleep(LOOK_EVERY_S)


def _has_said(name: str, words: str) -> bool:
    return words in (FOLDER / f"{name}.log").read_text(encoding="utf-8", errors="replace").lower()


@contextmanager
def _running(name: str, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    bin_folder = (ENVIRONMENT / "bin").absolute()
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {
        **inherited,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "FLWR_HOME": str(FOLDER.absolute() / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with (FOLDER / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(bin_folder / program), *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and all that it started; some of that are leaders of sessions of their own."""
    started: list[psutil.Process] = []
    with _gone_is_fine():
        started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs(started, timeout=END_TIMEOUT_S)
    for each in alive:
        with _gone_is_fine():
            each.kill()
    process.kill()
    process.wait()


def _watch(pid: int, marks: Path, sizes: list[int]) -> dict[int, tuple[float, float]]:
    """Size -> processor ms and wall seconds a round, from the marks that the ServerApp leaves."""
    spent: dict[tuple[int, float], float] = {}
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    deadline_s = time.monotonic() + PATIENCE_S
    while (sizes[-1], ROUNDS) not in seen:
        if time.monotonic() > deadline_s:
            raise FieldfoldError(f"Flower did not come to its end in {PATIENCE_S:.0f} s", f"see {FOLDER}")
        if _has_said("superlink", "task-token authentication failed"):
            raise FieldfoldError("Flower has given up a task: its heartbeat was late", "the machine is too busy")
        now_s = time.monotonic()
        for process in _descendants(pid):
            with _gone_is_fine():
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = times.user + times.system
        for line in marks.read_text(encoding="ascii").splitlines():
            size, round_ = map(int, line.split())
            seen.setdefault((size, round_), (sum(spent.values()), now_s))
        time.sleep(LOOK_EVERY_S)
    return {
        size: (
            1e3 * (seen[size, ROUNDS][0] - seen[size, 0][0]) / ROUNDS,
            (seen[size, ROUNDS][1] - seen[size, 0][1]) / ROUNDS,
        )
        for size in sizes
    }


def _descendants(pid: int) -> list[psutil.Process]:
    with _gone_is_fine():
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    raise FieldfoldError("Flower's SuperLink has ended", f"see {FOLDER}/superlink.log")


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return
