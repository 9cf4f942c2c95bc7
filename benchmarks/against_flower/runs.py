"""One run of either system until the target is reached, and what it took."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.against_flower.work import NODES, TARGET_CYCLES, Work, keep, partition
from benchmarks.chaos.network import BadLink
from benchmarks.load.deployment import Deployment, Tls, install
from benchmarks.load.usage import tree_cpu_s
from examples.turbofan.baselines import test_set, training_set
from examples.turbofan.fleet import Fleet, listens
from fieldfold.errors import FieldfoldError
from fieldfold.link.session import LinkConfig
from fieldfold.sensors.statistics import merge, normalisation
from fieldfold.task.bundle import Bundle

FOLDER = Path(".cache/benchmarks/against_flower")
APP = Path(__file__).resolve().parent / "app"
REPOSITORY = APP.parents[2]
BUNDLE = REPOSITORY / "examples" / "turbofan" / "turbofan.bundle"
POLL_S = 0.1
"""How often SuperExec looks for a task: Flower's default of 1 s would be 0.45 s more a message."""
IN_A_ROW = 3
"""Versions at the target that end a run of ours, which has more chances to be lucky; Flower's ends with the first."""
SETTINGS = '[fold]\nmethod = "slots"\nstart = 3\n'
"""What `fieldfold aggregator simulate` found quickest for such a fleet, with other seeds than those of the table."""
LOOK_EVERY_S = 0.05
PATIENCE_S = 900.0
MOST_ROUNDS = 20


class Cost(msgspec.Struct, frozen=True):
    """From the first model to the target, all processes and all nodes together; `score` is in cycles.

    Attributes:
        total_s: from the start of the first program.
        steps: rounds of Flower, versions of ours.
        longest_step_s: the longest round of Flower.
    """

    seconds: float
    total_s: float
    cpu_s: float
    bytes_up: int
    bytes_down: int
    steps: int
    score: float
    longest_step_s: float = 0.0


class Meter:
    """Says what was used since `begin`; the first program was started at `started_s` of the wall clock."""

    def __init__(self, links: Mapping[str, BadLink], started_s: float) -> None:
        self._links, self._started_s = links, started_s
        self._before = (0.0, 0.0, 0, 0)

    def begin(self, pids: Sequence[int]) -> None:
        """The first model is there."""
        self._before = self._now(pids)

    def end(self, pids: Sequence[int], at_s: float, steps: int, score: float) -> Cost:
        """The target was reached at `at_s` of the wall clock."""
        begun_s, cpu_s, up, down = self._before
        _, cpu_now_s, up_now, down_now = self._now(pids)
        return Cost(
            seconds=at_s - begun_s,
            total_s=at_s - self._started_s,
            cpu_s=cpu_now_s - cpu_s,
            bytes_up=up_now - up,
            bytes_down=down_now - down,
            steps=steps,
            score=score,
        )

    def _now(self, pids: Sequence[int]) -> tuple[float, float, int, int]:
        links = self._links.values()
        up, down = sum(link.bytes_up for link in links), sum(link.bytes_down for link in links)
        return time.time(), tree_cpu_s(pids), up, down


# -- Flower --------------------------------------------------------------------------------------------------------


def install_flower() -> None:
    """Flower, and for its apps the versions that train here."""
    exact = (f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime", "msgspec"))
    install(*exact, f"--editable={REPOSITORY}")


def lay_down(folder: Path, seed: int) -> None:
    """Data as Flower's apps load it, normalised with the statistics of the fleet."""
    bundle = Bundle.read(BUNDLE)
    raw = {node: training_set(bundle, engines) for node, engines in partition(seed).items()}
    scale = normalisation(functools.reduce(merge, (dataset.sums for dataset in raw.values())))
    for node, dataset in raw.items():
        keep(dataset.normalised(scale).train, folder / f"{node}.npz")
    keep(test_set(bundle).normalised(scale).test, folder / "test.npz")


class Flower:
    """A deployment with all nodes connected, and the run that was handed in."""

    def __init__(self, deployment: Deployment, links: Mapping[str, BadLink]) -> None:
        self.deployment, self.links = deployment, links
        self.marks_path = deployment.folder / "marks"

    def submit(self, work: Work, rounds: int, **further: str | float) -> None:
        """Begins a run of the app."""
        lay_down(self.deployment.folder, work.seed)
        self.marks_path.write_text("", encoding="ascii")
        settings = {"folder": str(self.deployment.folder), "bundle": str(BUNDLE), "marks": str(self.marks_path)}
        numbers = {"seed": work.seed, "steps": work.steps, "run-s": work.run_s, "straggler": work.straggler}
        self.deployment.submit(APP, {**settings, **numbers, "rounds": rounds, **further})

    def marks(self) -> list[dict[str, Any]]:
        """What the ServerApp has written: round, at_s, score."""
        return [json.loads(line) for line in self.marks_path.read_text(encoding="ascii").splitlines()]

    def pids(self) -> list[int]:
        """Of the programs that were started here."""
        return [self.deployment.pid(name) for name in ("superlink", *NODES)]

    def start_node(self, name: str) -> None:
        """A SuperNode, which reaches SuperLink through its relay."""
        self.deployment.start_node(name, "--node-config", f"node='{name}'", port=self.links[name].port)


@contextmanager
def flower(*link_options: str) -> Iterator[Flower]:
    """SuperLink and all SuperNodes, over TLS and connected."""
    environment = {"PYTHONPATH": str(REPOSITORY), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(POLL_S)}
    certificates = _certificates()
    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(FOLDER / "flower", certificates, environment))
        links = {node: stack.enter_context(BadLink(deployment.port)) for node in NODES}
        deployment.start_link(*link_options)
        running = Flower(deployment, links)
        for node in NODES:
            running.start_node(node)
        for node in NODES:
            deployment.wait_for_node(node)
        yield running


def _certificates() -> Tls:
    folder = (FOLDER / "certificates").resolve()
    if not folder.exists():
        PacedFleet(Work(0, 1, 0.0, straggler=False)).make_certificates(folder)
    return Tls(folder)


def run_flower(work: Work, timeout_s: float = 3600.0) -> Cost:
    """FedAvg of all nodes; a round takes whoever has answered within the timeout.

    Raises:
        FieldfoldError: when the target is not reached.
    """
    begun_s = time.time()
    with flower() as running:
        meter = Meter(running.links, begun_s)
        running.submit(work, MOST_ROUNDS, **{"timeout-s": timeout_s})
        begun = False
        while time.time() - begun_s < PATIENCE_S:
            marks = running.marks()
            if marks and not begun:
                meter.begin(running.pids())
                begun = True
            for mark in marks:
                if mark["score"] <= TARGET_CYCLES:
                    cost = meter.end(running.pids(), mark["at_s"], mark["round"], mark["score"])
                    return msgspec.structs.replace(cost, longest_step_s=_longest_step_s(marks))
            time.sleep(LOOK_EVERY_S)
    raise FieldfoldError(f"Flower did not come to {TARGET_CYCLES} cycles in {PATIENCE_S:.0f} s", f"see {FOLDER}")


def _longest_step_s(marks: Sequence[Mapping[str, Any]]) -> float:
    return max(float(later["at_s"] - one["at_s"]) for one, later in itertools.pairwise(marks))


def round_without_work(rounds: int = 4) -> Cost:
    """What Flower's round costs when a node answers at once; the first, in which apps travel, is left out.

    Raises:
        FieldfoldError: when the rounds do not come to their end.
    """
    begun_s, first_s = time.time(), 0.0
    with flower() as running:
        meter = Meter(running.links, begun_s)
        running.submit(Work(0, 0, 0.0, straggler=False), rounds + 1)
        while time.time() - begun_s < PATIENCE_S:
            marks = running.marks()
            if len(marks) > 1 and not first_s:
                first_s = marks[1]["at_s"]
                meter.begin(running.pids())
            if len(marks) > rounds + 1:
                cost = meter.end(running.pids(), marks[-1]["at_s"], rounds, marks[-1]["score"])
                return msgspec.structs.replace(
                    cost,
                    seconds=(marks[-1]["at_s"] - first_s) / rounds,
                    cpu_s=cost.cpu_s / rounds,
                    bytes_up=cost.bytes_up // rounds,
                    bytes_down=cost.bytes_down // rounds,
                )
            time.sleep(LOOK_EVERY_S)
    raise FieldfoldError(f"Flower's rounds took more than {PATIENCE_S:.0f} s", f"see {FOLDER}")


# -- fieldfold -----------------------------------------------------------------------------------------------------


class PacedFleet(Fleet):
    """The turbofan fleet with five gateways and a relay before each; `settings` are tables of aggregator.toml."""

    def __init__(self, work: Work, settings: str = SETTINGS) -> None:
        engines = partition(work.seed)
        pace = {node: work.pace(node) for node in engines}
        folder, steps = FOLDER / "fieldfold", work.steps
        super().__init__(folder, BUNDLE, engines, pace, fold=settings, steps_per_update=steps, seed=work.seed)
        if self.embedded:
            raise FieldfoldError("Mosquitto is not installed", "run packaging/install-test-programs")
        self.links: dict[str, BadLink] = {}

    def make_certificates(self, folder: Path) -> None:
        """An authority and a server's certificate for localhost."""
        self._complete("broker", "init", str(folder), "--port", str(self._port))

    def begin(self, stack: ExitStack, nodes: Sequence[str] = NODES) -> None:
        """Starts everything."""
        self.links |= {node: stack.enter_context(BadLink(self._port)) for node in nodes}
        self.start_broker()
        self.start_aggregator()
        for node in nodes:
            self.start_node(node)

    def start_broker_again(self) -> None:
        """With the sessions and messages that it had saved."""
        self._spawn("broker", "broker", "run", str(self.folder / "broker"))
        self._wait("broker", lambda: listens(self._port))

    def link_config(self, name: str) -> LinkConfig:
        """How one with that certificate connects."""
        identity = self.folder / "broker" / "identities" / name
        certificate, key = identity / f"{name}.crt", identity / f"{name}.key"
        url = f"mqtts://localhost:{self._port}"
        return LinkConfig(url=url, ca=str(identity / "ca.crt"), certificate=str(certificate), key=str(key))

    def pids(self) -> list[int]:
        """Of all programs."""
        return [process.pid for process in self._processes.values()]

    def _broker_table(self, name: str) -> str:
        table = super()._broker_table(name)
        return table.replace(str(self._port), str(self.links[name].port)) if name in self.links else table


def run_fieldfold(work: Work, settings: str = SETTINGS) -> Cost:
    """Real gateways over Mosquitto with mutual TLS.

    Raises:
        FieldfoldError: when the target is not reached.
    """
    begun_s = time.time()
    with ExitStack() as stack:
        fleet = stack.enter_context(PacedFleet(work, settings))
        fleet.begin(stack)
        meter = Meter(fleet.links, begun_s)
        scores: dict[int, float] = {}
        begun = False
        while time.time() - begun_s < PATIENCE_S:
            status = fleet.aggregator_status()
            if status is not None and status["version"] is not None and not begun:
                meter.begin(fleet.pids())
                begun = True
            if status is not None and status["score"] is not None:
                scores[status["score_version"]] = status["score"]
                last = list(scores.values())[-IN_A_ROW:]
                if len(last) == IN_A_ROW and max(last) <= TARGET_CYCLES:
                    return meter.end(fleet.pids(), time.time(), status["version"], last[-1])
            time.sleep(LOOK_EVERY_S)
            fleet.check_alive()
    raise FieldfoldError(f"no version came to {TARGET_CYCLES} cycles in {PATIENCE_S:.0f} s", f"see {FOLDER}")
