"""The gate: a bundle that does not train as torch does is never written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fieldfold.errors import CompileError
from fieldfold.task.authoring import Task
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.manifest import Manifest
from fieldfold.task.onnx_runtime import OnnxRuntime
from fieldfold.task.runtime import Runtime
from fieldfold.task.torch_runtime import TorchRuntime

STEPS = 20
TOLERANCE = 1e-5
"""Of the parameters after STEPS steps: distance over the norm of the float64 parameters."""
VALUE_TOLERANCE = 1e-4
"""Of losses, metrics and outputs, relative to the largest."""
MAX_ROWS = 64

FLOAT32_LIMIT = 1e-2
"""The same for tensors that torch's own float32 run cannot hold to TOLERANCE."""

_SHARE = 4  # float32 may use a quarter of the tolerance; beyond it, four times its distance is the measure
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
    """

    runtime: str
    rows: int
    error: float
    loose: tuple[str, ...]


class _Trial(NamedTuple):
    rows: int
    proximal: float
    clip_norm: float
    weighted: bool


def check_parity(task: Task, arrays: Arrays, bundle: Bundle, reference: MakeReference) -> list[Parity]:
    """Trains bundle and float64 torch side by side on two batch sizes, then evaluates and predicts with both.

    Where float32 does not determine a tensor, which torch's own float32 run shows, the graph is measured by that run:
    above all at the bias before a BatchNorm under Adam, whose gradient is nothing but rounding.

    Raises:
        CompileError: when they differ by more than the tolerances.
    """
    manifest = bundle.manifest
    full = min(max(task.batch_size, 3), MAX_ROWS)
    # a second size, with everything switched on that the task leaves off
    trials = (
        _Trial(full, manifest.proximal, manifest.clip_norm, weighted=False),
        _Trial(full // 2 + 1, manifest.proximal or 0.1, manifest.clip_norm or 1.0, weighted=True),
    )
    measured = []
    for trial in trials:
        runtimes: tuple[Runtime, ...] = (OnnxRuntime(bundle), TorchRuntime(bundle))
        wide, narrow = reference(torch.float64), reference(torch.float32)
        for runtime in runtimes:
            runtime.begin(bundle.initial_parameters())
        strayed = 0.0
        for index in range(STEPS):
            batch = arrays.sample(trial.rows, task.seed + index)
            options = _options(trial, manifest, task.seed + index)
            found = [runtime.step(batch, **options) for runtime in runtimes]
            expected = wide.step(batch, **options)
            strayed = max(strayed, abs(narrow.step(batch, **options) - expected))
            for runtime, loss in zip(runtimes, found, strict=True):
                what = f"the loss of step {index + 1} with {trial.rows} rows in {runtime.name}"
                _compare_values(what, [loss], [expected], strayed)
        measured += [_compare_parameters(trial.rows, bundle, runtime, wide, narrow) for runtime in runtimes]
        for runtime in runtimes:
            wide.load(_present(bundle, runtime))
            _compare_inference(runtime, wide, arrays.sample(manifest.batch_size + 1, task.seed))
    return measured


def _options(trial: _Trial, manifest: Manifest, seed: int) -> dict[str, Any]:
    """What a step is told beside its batch; weights and noise only in the trial that has everything."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {
        "learning_rate": manifest.learning_rate.initial,
        "proximal": trial.proximal,
        "clip_norm": trial.clip_norm,
        "seed": seed,
    }
    if trial.weighted:
        options["weights"] = np.append(rng.choice([0.0, 0.5, 1.0], trial.rows - 1), 1.0).astype(np.float32)
    if trial.weighted and manifest.privacy is not None:
        options["noise"] = rng.standard_normal(manifest.num_trained, np.float32) * np.float32(manifest.privacy.norm)
    return options


def _compare_parameters(
    rows: int, bundle: Bundle, runtime: Runtime, wide: ReferenceRun, narrow: ReferenceRun
) -> Parity:
    expected = wide.values()
    torch_float32 = _distances(narrow.values(), expected)
    found = _distances(_present(bundle, runtime), expected)
    loose = tuple(name for name, distance in torch_float32.items() if not distance * _SHARE <= TOLERANCE)
    strict = tuple(name for name in found if name not in loose)
    for names, limit in (
        (strict, TOLERANCE),
        (loose, min(FLOAT32_LIMIT, _SHARE * _joint(torch_float32, loose))),
    ):
        error = _joint(found, names)
        if not error <= limit:
            raise CompileError(
                f"after {STEPS} steps with {rows} rows {runtime.name} has the parameters {error:.1e} from those of "
                f"float64 torch ({limit:.0e} is allowed), most of all {max(names, key=lambda name: found[name])}",
                _HINT,
            )
    return Parity(runtime.name, rows, _joint(found, strict), loose)


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
