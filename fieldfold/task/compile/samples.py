"""Data of a task's shape, made up: for tracing, for the parity gate and for the self-check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldfold.sensors.schema import ColumnTarget, DataSchema, RemainingLifeTarget
from fieldfold.task.manifest import Array

INPUT = "x"
TARGET = "y"
_GRID = 8  # values are multiples of 1/8, so that the self-check's batch compresses


@dataclass(frozen=True)
class Arrays:
    """What the graphs take of a batch, derived from the data schema."""

    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    num_classes: int
    target_range: float

    @classmethod
    def of(cls, data: DataSchema) -> Arrays:
        """One input `x` (window, features); the target `y` is (1,) float32, or an int64 class index."""
        inputs = (Array(INPUT, "float32", (data.window, len(data.features))),)
        if isinstance(data.target, ColumnTarget) and data.target.classes:
            return cls(inputs, (Array(TARGET, "int64", ()),), len(data.target.classes), 0.0)
        cap = data.target.cap / data.target.scale if isinstance(data.target, RemainingLifeTarget) else 1.0
        return cls(inputs, (Array(TARGET, "float32", (1,)),), 0, cap)

    def sample(self, rows: int, seed: int) -> dict[str, NDArray[Any]]:
        """Inputs as normalised features are, standard normal; targets uniform over classes or over their range."""
        rng = np.random.default_rng(seed)
        batch: dict[str, NDArray[Any]] = {}
        for array in self.inputs:
            batch[array.name] = _on_grid(rng.standard_normal((rows, *array.shape)))
        for array in self.targets:
            if array.dtype == "int64":
                batch[array.name] = rng.integers(0, self.num_classes, (rows, *array.shape), np.int64)
            else:
                batch[array.name] = _on_grid(rng.random((rows, *array.shape)) * self.target_range)
        return batch

    def tensors(self, batch: dict[str, NDArray[Any]]) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and targets of a batch, in order."""
        return _tensors(batch, self.inputs), _tensors(batch, self.targets)


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (np.round(values * _GRID) / _GRID).astype(np.float32)


def _tensors(batch: dict[str, NDArray[Any]], arrays: Iterable[Array]) -> list[Tensor]:
    return [torch.from_numpy(batch[array.name]) for array in arrays]
