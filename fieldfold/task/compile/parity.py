"""The gate: a bundle that does not train as torch does is never written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fieldfold.errors import CompileError
from fieldfold.task.authoring import Task
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.even_batches import EvenBatches, Trial
from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime
from fieldfold.task.torch_runtime import TorchRuntime

STEPS = 20
TOLERANCE = 1e-5
"""Of the parameters after STEPS steps: distance over the norm of the float64 parameters."""
VALUE_TOLERANCE = 1e-4
"""Of losses, metrics and outputs, relative to the largest."""
MAX_ROWS = 8
"""Of a batch: of few rows, few have an activation on an edge."""

FLOAT32_LIMIT = 1e-2
"""The same for tensors that torch's own float32 run cannot hold to TOLERANCE, and where no batch is even."""

_SHARE = 4  # float32 may use a quarter of the tolerance; beyond it, four times its distance is the measure
_ATTEMPTS = 3
_SEEDS_APART = 100_000
_HINT = (
    "lower the learning rate if training diverges there, keep all state of the model in buffers, "
    "and let no example look at another in evaluation"
)

MakeReference = Callable[[torch.dtype], ReferenceRun]


class Parity(NamedTuple):
    """What the gate measured on one batch size, for the author.

    Attributes:
        runtime: `onnx` or `torch`.
        error: distance of the parameters over their norm.
        loose: tensors not in it: torch's own float32 run strays from float64 in them, and the graph no farther.
        even: False where every batch has an activation on an edge (`even_batches`), and the limit FLOAT32_LIMIT.
    """

    runtime: str
    rows: int
    error: float
    loose: tuple[str, ...]
    even: bool


def check_parity(task: Task, arrays: Arrays, bundle: Bundle, reference: MakeReference) -> list[Parity]:
    """Trains bundle and float64 torch side by side on two batch sizes, then evaluates and predicts with both.

    Where float32 does not determine a tensor, which torch's own float32 run shows, the graph is measured by that run:
    above all at the bias before a BatchNorm under Adam, whose gradient is nothing but rounding. The batches are even
    ones, as far as there are any: `even_batches`.

    Raises:
        CompileError: when they differ by more than the tolerances.
    """
    manifest = bundle.manifest
    full = min(max(task.batch_size, 3), MAX_ROWS)
    # a second size, with everything switched on that the task leaves off
    trials = (
        Trial(full, task.seed, manifest.proximal, manifest.clip_norm, weighted=False),
        Trial(full // 2 + 1, task.seed, manifest.proximal or 0.1, manifest.clip_norm or 1.0, weighted=True),
    )
    return [parity for trial in trials for parity in _tried(trial, arrays, bundle, reference)]


def _tried(trial: Trial, arrays: Arrays, bundle: Bundle, reference: MakeReference) -> list[Parity]:
    """What is wrong is wrong on any data; what is right has bad luck about once in a hundred times.

    Adam's first step divides each gradient by itself: one that is by chance nearly 0 keeps few digits in float32.
    """
    seeds = [trial.seed + attempt * _SEEDS_APART for attempt in range(_ATTEMPTS)]
    for seed in seeds[:-1]:
        with contextlib.suppress(CompileError):
            return _measured(trial._replace(seed=seed), arrays, bundle, reference)
    return _measured(trial._replace(seed=seeds[-1]), arrays, bundle, reference)


def _measured(trial: Trial, arrays: Arrays, bundle: Bundle, reference: MakeReference) -> list[Parity]:
    runtimes: tuple[Runtime, ...] = (OnnxRuntime(bundle), TorchRuntime(bundle))
    wide, narrow = reference(torch.float64), reference(torch.float32)
    batches = EvenBatches(arrays, bundle.manifest, trial)
    _train(bundle, runtimes, wide, narrow, batches)
    expected = wide.values()
    torch_float32 = _distances(narrow.values(), expected)
    measured = []
    for runtime in runtimes:
        present = _present(bundle, runtime)
        found = _distances(present, expected)
        measured.append(_judged(runtime.name, trial.rows, found, torch_float32, even=batches.even))
        wide.load(present)
        _compare_inference(runtime, wide, arrays.sample(bundle.manifest.batch_size + 1, trial.seed))
    return measured


def _train(
    bundle: Bundle, runtimes: Sequence[Runtime], wide: ReferenceRun, narrow: ReferenceRun, batches: EvenBatches
) -> None:
    """Takes STEPS steps with all, and compares their losses."""
    for runtime in runtimes:
        runtime.begin(bundle.initial_parameters())
    strayed = 0.0
    for index in range(STEPS):
        batch, options = batches.draw(index, wide)
        found = [runtime.step(batch, **options) for runtime in runtimes]
        expected = wide.step(batch, **options)
        strayed = max(strayed, abs(narrow.step(batch, **options) - expected)) if batches.even else math.inf
        for runtime, loss in zip(runtimes, found, strict=True):
            _compare_values(f"the loss of step {index + 1} in {runtime.name}", [loss], [expected], strayed)


def _judged(
    runtime: str, rows: int, found: dict[str, float], torch_float32: dict[str, float], *, even: bool
) -> Parity:
    loose = tuple(name for name, far in torch_float32.items() if even and not far * _SHARE <= TOLERANCE)
    strict = tuple(name for name in found if name not in loose)
    for names, limit in (
        (strict, TOLERANCE if even else FLOAT32_LIMIT),
        (loose, min(FLOAT32_LIMIT, _SHARE * _joint(torch_float32, loose))),
    ):
        error = _joint(found, names)
        if not error <= limit:
            raise CompileError(
                f"after {STEPS} steps with {rows} rows {runtime} has the parameters {error:.1e} from those of "
                f"float64 torch ({limit:.0e} is allowed), most of all {max(names, key=lambda name: found[name])}",
                _HINT,
            )
    return Parity(runtime, rows, _joint(found, strict), loose, even)


def _joint(distances: dict[str, float], names: Sequence[str]) -> float:
    return math.sqrt(sum(distances[name] ** 2 for name in names))


def _present(bundle: Bundle, runtime: Runtime) -> dict[str, NDArray[np.float32]]:
    """The tensors that steps change, by name."""
    manifest = bundle.manifest
    return {**manifest.layout.unflatten(runtime.parameters()), **manifest.local.unflatten(runtime.local())}


def _distances(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Of each tensor, over the norm of them all."""
    length = max(math.sqrt(sum(float(np.square(values).sum()) for values in expected.values())), 1e-30)
    return {name: float(np.linalg.norm(found[name] - values)) / length for name, values in expected.items()}


def _compare_inference(runtime: Runtime, run: ReferenceRun, batch: dict[str, NDArray[Any]]) -> None:
    """All rows, of which the last is a batch of its own, and one row alone."""
    parameters, local = runtime.parameters(), runtime.local()
    evaluation = runtime.evaluate(parameters, batch, local)
    expected = run.evaluate(batch)
    _compare_values("the evaluation loss", [evaluation.loss], expected[:1])
    for (name, found), mean, measure in zip(evaluation.metrics.items(), expected[1:], run.metrics, strict=True):
        _compare_values(f"the metric {name}", [found], [measure.metric.value(mean)])
    one = {name: array[:1] for name, array in batch.items()}
    for rows in (batch, one):
        predicted = runtime.predict(parameters, rows, local)
        for name, tensor in run.predict(rows).items():
            if predicted[name].shape != tensor.shape:
                raise CompileError(
                    f"the predict graph gives {name} of shape {predicted[name].shape}, torch {tensor.shape}"
                )
            _compare_values(f"{name} for {len(tensor)} rows", predicted[name].reshape(-1), tensor.numpy().reshape(-1))


def _compare_values(what: str, found: Any, expected: Any, strayed: float = 0.0) -> None:
    """Against the tolerance, or against how far torch's own float32 run has strayed, where that is more."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if not np.isfinite(expected).all():
        raise CompileError(f"{what} is not finite in torch", "lower the learning rate, or set clip_norm")
    difference = float(np.abs(found - expected).max(initial=0.0))
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    limit = max(VALUE_TOLERANCE * largest, min(FLOAT32_LIMIT * largest, _SHARE * strayed))
    if not difference <= limit or math.isnan(difference):
        raise CompileError(f"{what} differs from float64 torch by {difference:.1e}", _HINT)
