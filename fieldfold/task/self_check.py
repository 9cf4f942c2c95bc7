"""The batch that a node trains on before it trusts a bundle, and what must come out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import BundleError
from fieldfold.params import Vector
from fieldfold.task.bundle import Bundle
from fieldfold.task.manifest import Manifest
from fieldfold.task.runtime import Batch, Runtime

SEED = 1  # of the first step; each further step takes the next number
_SMALLEST_LOSS = 1e-6  # below this, a loss is compared absolutely


def write_batch(manifest: Manifest, batch: Batch) -> bytes:
    """The section `self_check`: inputs, then targets, raw, little-endian, in the manifest's order."""
    arrays = (*manifest.inputs, *manifest.targets)
    return b"".join(
        np.ascontiguousarray(batch[array.name], _little_endian(array.dtype)).tobytes() for array in arrays
    )


def read_batch(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The arrays of the section `self_check` by name, batch dimension first."""
    manifest = bundle.manifest
    content = bundle.section("self_check")
    batch: dict[str, NDArray[Any]] = {}
    start = 0
    for array in (*manifest.inputs, *manifest.targets):
        dtype = np.dtype(_little_endian(array.dtype))
        shape = (manifest.self_check.batch_size, *array.shape)
        values = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)
        batch[array.name] = np.ascontiguousarray(values, array.dtype)
        start += values.nbytes
    return batch


def run_self_check(manifest: Manifest, runtime: Runtime, first: Vector, batch: Batch) -> None:
    """Trains from the first parameters and compares every loss.

    Raises:
        BundleError: when a loss differs by more than the tolerance.
    """
    check = manifest.self_check
    runtime.begin(first)
    for index, expected in enumerate(check.losses):
        loss = runtime.step(
            batch,
            learning_rate=check.learning_rate,
            seed=SEED + index,
            proximal=manifest.proximal,
            clip_norm=manifest.clip_norm,
        )
        _compare(f"the loss of step {index + 1}", loss, expected, check.tolerance)
    evaluation = runtime.evaluate(runtime.parameters(), batch, runtime.local())
    _compare("the evaluation loss", evaluation.loss, check.evaluation_loss, check.tolerance)


def _compare(what: str, found: float, expected: float, tolerance: float) -> None:
    # written so that a NaN fails
    if not abs(found - expected) <= tolerance * max(abs(expected), _SMALLEST_LOSS):
        raise BundleError(
            f"self-check: {what} is {found:.6g} here and {expected:.6g} where the bundle was built",
            "do not train with this bundle here; report this machine's processor and onnxruntime version",
        )


def _little_endian(dtype: str) -> str:
    return {"float32": "<f4", "int64": "<i8"}[dtype]


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """To seven digits: what every build machine agrees on, so that a bundle can be reproduced."""
    return tuple(float(f"{value:.7g}") for value in values)
