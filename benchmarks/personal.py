"""What a model of its own gives a gateway: Ditto beside federated averaging, on data unlike that of the others.

    python -m benchmarks.personal --seeds 5

Twelve gateways hold digits dealt out by Dirichlet .3: three fifths to train on, a fifth to choose what is served,
and a fifth that nobody looks at before the end. Rounds of all, without a codec. MNIST is not kept here and is left
out unless --mnist names it (see benchmarks/data/SOURCE.txt).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from aggregator.simulate import scenario
from aggregator.simulate.partition import Indices, deal
from aggregator.simulate.scenario import PartitionConfig
from aggregator.simulate.workers import read
from benchmarks.asynchrony import prepare
from fieldfold.params import Vector
from fieldfold.sensors.windows import Windows
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.local_training import run_seed, train_locally
from fieldfold.task.runtime import Runtime
from node_app.adopt import Served
from node_app.config import TrainingConfig
from node_app.follow import Model
from node_app.personal import Personal
from node_app.serving import Serving
from node_app.train import plan_run

SCENARIOS = Path(__file__).parent / "asynchrony" / "scenarios"
NODES, ROUNDS, FIRST_SEED = 12, 60, 20
FEWEST = 50
PULLS = (1e-6, 0.1, 1.0, 3.0)
"""Of the fleet's model; the first is as good as none."""
RUN = "00" * 8
NO_LOCAL: Vector = np.zeros(0, np.float32)


class Open:
    """A gate that lets everything pass."""

    def passes(self, wait_s: float) -> bool:
        """See Gate."""
        return wait_s <= 0

    def stepped(self, step: int, of: int, loss: float) -> None:
        """See Gate."""


@dataclass
class Gateway:
    """Its windows, and its models by the pull; `released` is what it would serve without one of its own."""

    name: str
    train: Windows
    validation: Windows
    test: Windows
    personal: dict[float, Personal]
    serving: dict[float, Serving]
    released: Serving = field(default_factory=Serving)


def gateways(bundle: Bundle, windows: Windows, dealt: list[Indices], seed: int) -> Iterator[Gateway]:
    """One for each share, cut at random."""
    rng = np.random.default_rng(seed)
    for number, mine in enumerate(dealt):
        parts = np.split(rng.permutation(mine), [len(mine) * 3 // 5, len(mine) * 4 // 5])
        train, validation, test = (replace(windows, starts=windows.starts[np.sort(part)]) for part in parts)
        personal = {pull: Personal(bundle, TrainingConfig(personal=pull)) for pull in PULLS}
        yield Gateway(f"node-{number}", train, validation, test, personal, {pull: Serving() for pull in PULLS})


def play(bundle: Bundle, fleet: list[Gateway], seed: int) -> Vector:
    """The fleet's model after all rounds, and what each gateway has and serves by then."""
    runtime, metric, fleet_model = open_runtime(bundle), bundle.manifest.metrics[0], bundle.initial_parameters()
    for version in range(ROUNDS):
        model, deltas = Model(RUN, version, fleet_model, None), []
        for each in fleet:
            found = Served(version, fleet_model, NO_LOCAL, score(runtime, fleet_model, each.validation))
            for serving in (each.released, *each.serving.values()):
                serving.offer(found, metric)
            own_seed = run_seed(each.name, seed, version, 0)
            plan = plan_run(bundle.manifest, TrainingConfig(), version, len(each.train), own_seed)
            result = train_locally(runtime, fleet_model, NO_LOCAL, each.train, plan, Open())
            if result is None:
                raise RuntimeError("an open gate has ended a run")
            deltas.append(result.delta)
            for pull, personal in each.personal.items():
                own = personal.train(runtime, model, NO_LOCAL, each.train, plan, Open())
                if own is not None:
                    own = msgspec.structs.replace(own, score=score(runtime, own.parameters, each.validation))
                    personal.model = own
                    each.serving[pull].offer(own, metric)
        weights = [len(each.train) for each in fleet]
        fleet_model = (fleet_model + np.average(deltas, axis=0, weights=weights)).astype(np.float32)
    return fleet_model


def score(runtime: Runtime, parameters: Vector, windows: Windows) -> float:
    """The task's first metric."""
    return next(iter(runtime.evaluate(parameters, windows.all()).metrics.values()))


def scores(bundle: Bundle, fleet: list[Gateway], fleet_model: Vector) -> dict[str, list[float]]:
    """Of each model, on each gateway's last fifth."""
    runtime = open_runtime(bundle)
    found: dict[str, list[float]] = {}
    for each in fleet:
        models = {"the fleet's": fleet_model, "the fleet's, as served": _served(each.released)}
        for pull, personal in each.personal.items():
            if personal.model is not None:
                models[f"personal, {pull:g}"] = personal.model.parameters
            models[f"personal, {pull:g}, as served"] = _served(each.serving[pull])
        for name, parameters in models.items():
            found.setdefault(name, []).append(score(runtime, parameters, each.test))
    return found


def _served(serving: Serving) -> Vector:
    if serving.served is None:
        raise RuntimeError("nothing was offered")
    return serving.served.parameters


def table(task: str, seeds: int) -> dict[str, list[float]]:
    """Prints and gives mean over the gateways, that of the worst, and the spread of the means over the seeds."""
    loaded = scenario.load(SCENARIOS / f"{task}-even.toml")
    bundle = Bundle.read(SCENARIOS / loaded.task)
    data = read(loaded, bundle, SCENARIOS)
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        dealt = deal(data.holdings, PartitionConfig(by="classes"), np.zeros(NODES, np.bool_), FEWEST, seed)
        fleet = list(gateways(bundle, data.train, dealt, seed))
        runs.append(scores(bundle, fleet, play(bundle, fleet, seed)))
    print(f"\n{task}: {bundle.manifest.metrics[0].name} on each gateway's own, {seeds} seeds from {FIRST_SEED}")
    rows = {}
    for name in runs[0]:
        means = [float(np.mean(run[name])) for run in runs]
        rows[name] = [float(np.mean(means)), float(np.mean([min(run[name]) for run in runs])), min(means), max(means)]
        mean, worst, low, high = rows[name]
        print(f"{name:<28} {mean:.3f} ({low:.3f} to {high:.3f})   worst gateway {worst:.3f}")
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mnist", type=Path, help="mnist_5k.csv.gz")
    given = parser.parse_args()
    prepare.digits()
    if given.mnist:
        prepare.mnist(given.mnist)
    tasks = ["digits", *(["mnist"] if given.mnist else [])]
    print(json.dumps({task: table(task, given.seeds) for task in tasks}))


if __name__ == "__main__":
    main()
