"""Batches as the graphs take them: every array of the manifest, of its dtype, all with the same number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.task.manifest import Array
from fieldfold.task.runtime import Batch
from fieldfold.task.signature import WEIGHTS


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


def with_weights(
    rows: dict[str, NDArray[Any]], weights: NDArray[np.float32] | None, *, at_most: float
) -> dict[str, NDArray[Any]]:
    """A batch for training: with weights, 1 each when none are given, and with two rows or more.

    A single row is doubled, the second with weight 0: one example has no variance, which BatchNorm divides by.

    Raises:
        DataError: when the weights are not one number from 0 to `at_most` for each row, or all 0.
    """
    count = len(next(iter(rows.values())))
    given = np.ones(count, np.float32) if weights is None else np.ascontiguousarray(weights, np.float32)
    if weights is not None and not (given.shape == (count,) and 0 <= given.min() <= given.max() <= at_most):
        raise DataError(
            f"the weights of a batch of {count} rows have shape {given.shape} or leave 0 to {at_most:g}",
            "give one finite number for each row",
        )
    if not 0 < given.sum() < np.inf:
        raise DataError("every row of the batch has weight 0, or one is infinite", "leave such a batch out")
    if count == 1:
        return {
            **{name: np.repeat(array, 2, 0) for name, array in rows.items()},
            WEIGHTS: np.append(given, np.float32(0)),
        }
    return {**rows, WEIGHTS: given}


def chunks(rows: dict[str, NDArray[Any]], size: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """The rows in pieces of at most `size`, and how many each has."""
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        chunk = {name: array[start : start + size] for name, array in rows.items()}
        yield chunk, min(size, count - start)
