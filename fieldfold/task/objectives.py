"""Ready losses and metrics; every one gives one float value an example, shape `(batch,)`.

One value an example, not their mean: so a short last batch is averaged exactly, and an example can be masked. What a
target per step adds as dimensions is averaged. Losses of an author's own are functions like these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from fieldfold.task.manifest import Metric

PerExample: TypeAlias = Callable[..., Tensor]
"""`(output, target, ...) -> values` with values of shape `(batch,)`; as many targets as the task has."""


@dataclass(frozen=True)
class Measure:
    """A metric for people: what it is called, and the torch function behind it."""

    metric: Metric
    values: PerExample

    def of(self, output: str | int, target: int = 0) -> Measure:
        """The same of one of several outputs, by its key or number, and of one of several targets."""
        values = self.values
        return replace(self, values=lambda outputs, *targets: values(outputs[output], targets[target]))

    def named(self, name: str) -> Measure:
        """The same under another name."""
        return replace(self, metric=msgspec.structs.replace(self.metric, name=name))


def measure(  # noqa: PLR0913 -- the fields of a Metric
    name: str,
    values: PerExample,
    *,
    better: Literal["lower", "higher"],
    finish: Literal["mean", "root"] = "mean",
    scale: float = 1.0,
    unit: str = "",
) -> Measure:
    """A metric of an author's own: `finish` of the mean of `values` over all examples, times `scale`."""
    return Measure(Metric(name, better, finish, scale, unit), values)


def _same_shape(output: Tensor, target: Tensor) -> None:
    if output.shape[1:] != target.shape[1:]:
        raise ValueError(f"an output has shape {tuple(output.shape[1:])} and its target {tuple(target.shape[1:])}")


def _class_scores(output: Tensor, target: Tensor) -> None:
    if output.dim() < 2 or output.shape[1:-1] != target.shape[1:]:
        raise ValueError(
            f"class scores have shape {tuple(output.shape[1:])} and their target {tuple(target.shape[1:])}: "
            "scores have one dimension more, the classes, as their last"
        )


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


def huber(delta: float = 1.0) -> PerExample:
    """Squared for errors up to `delta` and linear beyond (Huber, 1964), so that an outlier pulls no harder."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        _same_shape(output, target)
        error = (output - target).abs()
        near = error.clamp(max=delta)
        return _mean_per_example(near * (error - 0.5 * near))

    return loss


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of class scores `(batch, ..., classes)` against class indices `(batch, ...)`."""
    return _mean_per_example(_class_losses(output, target))


def weighted_cross_entropy(weights: Sequence[float]) -> PerExample:
    """Cross entropy in which each class counts by its weight: say, more for what is rare."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if output.shape[-1] != len(weights):
            raise ValueError(f"there are {len(weights)} class weights and {output.shape[-1]} class scores")
        factors = torch.tensor(weights, dtype=output.dtype)
        return _mean_per_example(_class_losses(output, target) * factors[target])

    return loss


def _class_losses(output: Tensor, target: Tensor) -> Tensor:
    _class_scores(output, target)
    log_probabilities = functional.log_softmax(output, -1)
    return -log_probabilities.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of label scores (before the sigmoid) against 0 and 1, averaged over the labels."""
    return _mean_per_example(_label_losses(output, target))


def weighted_binary_cross_entropy(positive_weights: Sequence[float]) -> PerExample:
    """The same, in which a 1 counts by its label's weight: say, the number of 0 for each 1."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if output.shape[-1] != len(positive_weights):
            raise ValueError(f"there are {len(positive_weights)} label weights and {output.shape[-1]} label scores")
        factors = torch.tensor(positive_weights, dtype=output.dtype)
        return _mean_per_example(_label_losses(output, target) * (1 + (factors - 1) * target))

    return loss


def _label_losses(output: Tensor, target: Tensor) -> Tensor:
    _same_shape(output, target)
    return functional.softplus(-output) + (1 - target) * output


def correct(output: Tensor, target: Tensor) -> Tensor:
    """1 where the largest class score is the target's, else 0."""
    _class_scores(output, target)
    return _mean_per_example((output.argmax(-1) == target).to(output.dtype))


def correct_labels(output: Tensor, target: Tensor) -> Tensor:
    """Share of an example's labels that are right: a score above 0 says 1."""
    _same_shape(output, target)
    return _mean_per_example(((output > 0) == (target > 0.5)).to(output.dtype))


def rmse(*, scale: float = 1.0, unit: str = "") -> Measure:
    """Root mean squared error, times `scale`, in `unit`."""
    return Measure(Metric("RMSE", "lower", finish="root", scale=scale, unit=unit), mean_squared_error)


def mae(*, scale: float = 1.0, unit: str = "") -> Measure:
    """Mean absolute error, times `scale`, in `unit`."""
    return Measure(Metric("MAE", "lower", scale=scale, unit=unit), mean_absolute_error)


def accuracy() -> Measure:
    """Share of examples (or of their steps) whose class is right, 0 to 1."""
    return Measure(Metric("accuracy", "higher"), correct)


def label_accuracy() -> Measure:
    """Share of all labels that are right, 0 to 1."""
    return Measure(Metric("label accuracy", "higher"), correct_labels)
