"""What a user would pick today on the same machine: Flower in deployment mode, float32, its FedAvg, no torch.

SuperLink, SuperNodes and one ServerApp that runs a few rounds with a tiny model, which show what a round costs
whatever its size, and then a few with the model asked for. Counted is the processor time of SuperLink and all that
descends from it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec
import psutil

from benchmarks.load.deployment import LOOK_EVERY_S, Deployment, install
from fieldfold.errors import FieldfoldError

FOLDER = Path(".cache/benchmarks/flower")
NODES = 3
ROUNDS = 3
TINY = 1000
"""Parameters of the rounds that are nothing but overhead."""
PATIENCE_S = 1500.0

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
    install()
    sizes = [TINY, num_params]
    with Deployment(FOLDER) as deployment:
        marks = _write_app(deployment.folder, sizes)
        deployment.start_link()
        for number in range(NODES):
            deployment.start_node(f"supernode-{number}")
        deployment.submit(deployment.folder / "app")
        rounds = _watch(deployment, marks, sizes)
    (tiny_ms, _), (round_ms, wall_s) = rounds[TINY], rounds[num_params]
    return FlowerCost((round_ms - tiny_ms) / NODES, tiny_ms, wall_s)


def _write_app(folder: Path, sizes: list[int]) -> Path:
    source = folder / "app" / "beside"
    source.mkdir(parents=True)
    marks = folder / "marks"
    marks.touch()
    (folder / "app" / "pyproject.toml").write_text(APP, encoding="utf-8")
    server = SERVER.format(sizes=sizes, marks=marks, nodes=NODES, rounds=ROUNDS)
    for name, text in {"__init__": "", "server": server, "client": CLIENT}.items():
        (source / f"{name}.py").write_text(text, encoding="utf-8")
    return marks


def _watch(deployment: Deployment, marks: Path, sizes: list[int]) -> dict[int, tuple[float, float]]:
    """Size -> processor ms and wall seconds a round, from the marks that the ServerApp leaves."""
    spent: dict[tuple[int, float], float] = {}
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    deadline_s = time.monotonic() + PATIENCE_S
    while (sizes[-1], ROUNDS) not in seen:
        if time.monotonic() > deadline_s:
            raise FieldfoldError(f"Flower did not come to its end in {PATIENCE_S:.0f} s", f"see {FOLDER}")
        if "task-token authentication failed" in deployment.log("superlink").lower():
            raise FieldfoldError("Flower has given up a task: its heartbeat was late", "the machine is too busy")
        now_s = time.monotonic()
        for process in deployment.look("superlink"):
            with contextlib.suppress(psutil.NoSuchProcess):
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
