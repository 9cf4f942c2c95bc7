"""Data of a task's shape, made up: for tracing, for the parity gate and for the self-check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.sensors.schema import ColumnTarget, DataSchema, InputTarget, LabelsTarget, RemainingLifeTarget, Target

_GRID = 8  # values are multiples of 1/8, so that the self-check's batch compresses


@dataclass(frozen=True)
class Arrays:
    """What the graphs take of a batch, derived from the data schema."""

    data: DataSchema
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]

    @classmethod
    def of(cls, data: DataSchema) -> Arrays:
        """The arrays that `data` leads to."""
        return cls(data, input_arrays(data), target_arrays(data))

    def sample(self, rows: int, seed: int) -> dict[str, NDArray[Any]]:
        """Inputs as normalised features are, standard normal; categories, classes and labels uniform.

        Other targets are uniform over their range, 0 to 1 where that is not known.
        """
        rng = np.random.default_rng(seed)
        batch: dict[str, NDArray[Any]] = {}
        for array, places in zip(self.inputs, self.data.inputs.values(), strict=True):
            shape = (rows, *array.shape)
            if array.dtype == "int64":
                numbers = [self.data.features[place].num_categories for place in places]
                batch[array.name] = rng.integers(0, numbers, shape, np.int64)
            else:
                batch[array.name] = _on_grid(rng.standard_normal(shape))
        for array, target in zip(self.targets, self.data.targets, strict=True):
            if isinstance(target, InputTarget):
                batch[array.name] = batch[target.input].copy()
            else:
                batch[array.name] = _sample_target(target, (rows, *array.shape), rng)
        return batch

    def tensors(self, batch: dict[str, NDArray[Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and targets of a batch, in order."""
        return _tensors(batch, self.inputs), _tensors(batch, self.targets)


def _sample_target(target: Target, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    match target:
        case ColumnTarget(classes=classes) if classes:
            return rng.integers(0, len(classes), shape, np.int64)
        case LabelsTarget():
            return rng.integers(0, 2, shape).astype(np.float32)
        case RemainingLifeTarget(cap=cap, scale=scale):
            return _on_grid(rng.random(shape) * (cap / scale))
    return _on_grid(rng.random(shape))


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (np.round(values * _GRID) / _GRID).astype(np.float32)


def _tensors(batch: dict[str, NDArray[Any]], arrays: Iterable[Array]) -> list[Tensor]:
    return [torch.from_numpy(batch[array.name]) for array in arrays]
