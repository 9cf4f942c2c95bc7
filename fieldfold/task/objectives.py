"""Ready losses and metrics; every one gives one float value an example, shape `(batch,)`.

One value an example, not their mean: so a short last batch is averaged exactly, and an example can be masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from fieldfold.task.manifest import Metric

PerExample: TypeAlias = Callable[..., Tensor]
"""`(output, target) -> values` with values of shape `(batch,)`."""


@dataclass(frozen=True)
class Measure:
    """A metric for people: what it is called, and the torch function behind it."""

    metric: Metric
    values: PerExample


def _same_shape(output: Tensor, target: Tensor) -> None:
    if output.shape[1:] != target.shape[1:]:
        raise ValueError(f"an output has shape {tuple(output.shape[1:])} and its target {tuple(target.shape[1:])}")


def _mean_per_example(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of each example, averaged over its outputs."""
    _same_shape(output, target)
    return _mean_per_example((output - target) ** 2)


def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each example, averaged over its outputs."""
    _same_shape(output, target)
    return _mean_per_example((output - target).abs())


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of class scores `(batch, classes)` against class indices `(batch,)`."""
    log_probabilities = functional.log_softmax(output, 1)
    return -log_probabilities.gather(1, target.unsqueeze(1)).squeeze(1)


def correct(output: Tensor, target: Tensor) -> Tensor:
    """1 where the largest class score is the target's, else 0."""
    return (output.argmax(1) == target).to(output.dtype)


def rmse(*, scale: float = 1.0, unit: str = "") -> Measure:
    """Root mean squared error, times `scale`, in `unit`."""
    return Measure(Metric("RMSE", "lower", finish="root", scale=scale, unit=unit), mean_squared_error)


def mae(*, scale: float = 1.0, unit: str = "") -> Measure:
    """Mean absolute error, times `scale`, in `unit`."""
    return Measure(Metric("MAE", "lower", scale=scale, unit=unit), mean_absolute_error)


def accuracy() -> Measure:
    """Share of examples whose class is right, 0 to 1."""
    return Measure(Metric("accuracy", "higher"), correct)
