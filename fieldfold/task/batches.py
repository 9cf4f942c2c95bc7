"""Batches as the graphs take them, all arrays with the same number of rows, and what an evaluation makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors.arrays import Array
from fieldfold.task.manifest import Manifest
from fieldfold.task.runtime import Batch, Evaluation
from fieldfold.task.signature import LOSS, WEIGHTS

MIN_ROWS = 2


def conform(data: Batch, arrays: Sequence[Array]) -> dict[str, NDArray[Any]]:
    """The arrays by name, contiguous and of the manifest's dtype, all with the same number of rows, at least one.

    Raises:
        DataError: when one is missing, of another shape, or empty.
    """
    rows: dict[str, NDArray[Any]] = {}
    count = None
    for array in arrays:
        if array.name not in data:
            raise DataError(f"the batch has no array {array.name}", f"give it with shape (rows, *{array.shape})")
        values = np.ascontiguousarray(data[array.name], array.dtype)
        count = values.shape[0] if count is None and values.ndim else count
        if values.shape != (count, *array.shape):
            raise DataError(
                f"array {array.name} has shape {values.shape}, the task takes (rows, *{array.shape})",
                "give every array of a batch the same number of rows, and windows as the task's data says",
            )
        rows[array.name] = values
    if not count:
        raise DataError("the batch has no row", "give at least one")
    return rows


def training_batch(
    manifest: Manifest, data: Batch, weights: NDArray[np.float32] | None = None
) -> dict[str, NDArray[Any]]:
    """What the train graph takes of a batch: its arrays, and `weights`, 1 each when none are given.

    A single row is doubled, the second with weight 0: one example has no variance, which BatchNorm divides by. A task
    that clips each example's gradient gets its batch filled up in the same way.

    Raises:
        DataError: as `conform`, or when the weights are not one finite number for each row, from 0 (to 1, where each
            example's gradient is clipped), or all 0, or there are more rows than a task with clipping takes.
    """
    rows = conform(data, (*manifest.inputs, *manifest.targets))
    count = len(next(iter(rows.values())))
    given = np.ones(count, np.float32) if weights is None else np.ascontiguousarray(weights, np.float32)
    most = 1.0 if manifest.privacy else float(np.finfo(np.float32).max)
    if given.shape != (count,) or not 0 <= given.min() <= given.max() <= most or not given.any():
        raise DataError(
            f"the weights of a batch of {count} rows are not as many numbers from 0 to {most:g}, or all 0",
            "give one for each row, above 0 for at least one of them",
        )
    if manifest.privacy and count > manifest.batch_size:
        raise DataError(f"a batch has {count} rows, this task takes {manifest.batch_size}", "give smaller batches")
    return filled({**rows, WEIGHTS: given}, manifest.batch_size if manifest.privacy else MIN_ROWS)


def filled(rows: dict[str, NDArray[Any]], size: int) -> dict[str, NDArray[Any]]:
    """At least `size` rows: where some are missing, copies of the first with weight 0."""
    missing = size - len(rows[WEIGHTS])
    if missing <= 0:
        return rows
    longer = {name: np.concatenate([array, np.repeat(array[:1], missing, 0)]) for name, array in rows.items()}
    longer[WEIGHTS][-missing:] = 0
    return longer


def chunks(rows: dict[str, NDArray[Any]], size: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """The rows in pieces of at most `size`, and how many are left from each on."""
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        chunk = {name: array[start : start + size] for name, array in rows.items()}
        yield chunk, count - start


def columns(manifest: Manifest) -> tuple[str, ...]:
    """Names of what the evaluation graph gives: the loss, then the metrics."""
    return (LOSS, *(f"metric.{index}" for index in range(len(manifest.metrics))))


def evaluation(manifest: Manifest, rows: Batch, values: NDArray[np.float32]) -> Evaluation:
    """From the columns `(columns, rows)` that the evaluation graph gives for these rows.

    Raises:
        DataError: when a row is of a class that the task does not have.
    """
    loss, *means = values.mean(1, dtype=np.float64).tolist()
    metrics = {metric.name: metric.value(mean) for metric, mean in zip(manifest.metrics, means, strict=True)}
    return Evaluation(loss, metrics, values.shape[1], _by_class(manifest, rows, values[1]))


def _by_class(manifest: Manifest, rows: Batch, deciding: NDArray[np.float32]) -> tuple[tuple[float, int], ...]:
    num_classes = len(manifest.data.scored_classes)
    if not num_classes:
        return ()
    which = rows[manifest.targets[0].name]
    if not 0 <= which.min() <= which.max() < num_classes:
        raise DataError(f"a row is of class {which.max()} or {which.min()}, the task has {num_classes} from 0 on")
    counts = np.bincount(which, minlength=num_classes).tolist()
    sums = np.bincount(which, deciding, num_classes).tolist()
    metric = manifest.metrics[0]
    return tuple((metric.value(total / n), n) if n else (0.0, 0) for total, n in zip(sums, counts, strict=True))
