"""What a data scientist imports in a task file.

A task file is ordinary Python that assigns `TASK`:

    import torch
    from fieldfold.task.authoring import *

    TASK = Task(
        name="bearing-wear",
        model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64 * 2, 1)),
        loss=mean_squared_error,
        metrics=[rmse(scale=1000, unit="hours")],
        data=DataSchema(features=features("vibration", "heat"), window=64, target=ColumnTarget("life", scale=1000)),
        optimizer=adam(),
        learning_rate=1e-3,
    )

`fieldfold task build FILE.py -o NAME.bundle` compiles it; docs/TASKS.md says what a model is called with, and what it
may do. Dropout and noise in the forward pass become seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from torch import nn

from fieldfold.sensors.schema import (
    ColumnTarget,
    DataSchema,
    Feature,
    InputTarget,
    LabelsTarget,
    RemainingLifeTarget,
)
from fieldfold.task.manifest import LearningRate, Manifest, Metric, Optimizer, PerExampleClipping
from fieldfold.task.objectives import (
    Measure,
    PerExample,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    huber,
    label_accuracy,
    mae,
    mean_absolute_error,
    mean_squared_error,
    measure,
    rmse,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)
from fieldfold.task.signature import RESERVED

__all__ = [
    "ColumnTarget",
    "DataSchema",
    "Feature",
    "InputTarget",
    "LabelsTarget",
    "LearningRate",
    "Measure",
    "Metric",
    "PerExampleClipping",
    "RemainingLifeTarget",
    "Task",
    "accuracy",
    "adam",
    "adamw",
    "binary_cross_entropy",
    "category",
    "cross_entropy",
    "features",
    "huber",
    "label_accuracy",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "measure",
    "rmse",
    "sgd",
    "weighted_binary_cross_entropy",
    "weighted_cross_entropy",
]


def features(
    *names: str,
    unit: str = "",
    input: str | None = None,  # noqa: A002 -- the schema's word
) -> tuple[Feature, ...]:
    """Channels that are numbers, in the order of the last dimension of `input`, the model's argument (`x`)."""
    return tuple(Feature(name, unit, input=input) for name in names)


def category(
    name: str,
    *categories: str,
    others: bool = False,
    input: str | None = None,  # noqa: A002 -- the schema's word
) -> Feature:
    """A channel that is one of several categories: int64 indices, `Feature.num_categories` of them, in the input `c`.

    A value that is none of them stops a gateway with an error, unless `others` gives all such an index, the last.
    """
    return Feature(name, categories=categories, others=others, input=input)


def adam(*, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0) -> Optimizer:
    """torch.optim.Adam: weight decay is added to the gradient."""
    return Optimizer("adam", beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)


def adamw(
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    decay_vectors: bool = True,
) -> Optimizer:
    """torch.optim.AdamW: decoupled weight decay; without `decay_vectors` it spares biases and norm scales."""
    return Optimizer(
        "adam",
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        weight_decay=weight_decay,
        decoupled=True,
        decay_vectors=decay_vectors,
    )


def sgd(
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    decay_vectors: bool = True,
) -> Optimizer:
    """torch.optim.SGD; with `decoupled` its weight decay is AdamW's, and `decay_vectors` as there."""
    return Optimizer(
        "sgd",
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        decoupled=decoupled,
        decay_vectors=decay_vectors,
    )


_AS_IN_MANIFEST = (
    "name",
    "description",
    "data",
    "optimizer",
    "batch_size",
    "local_steps",
    "proximal",
    "clip_norm",
    "privacy",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model and everything that is needed to train it on a gateway.

    Attributes:
        name: lower case, as it appears in topics and on screens.
        model: the network, or a class or function that makes it.
        loss: `(output, target)` -> one value an example, shape `(batch,)`; training minimises their mean.
        metrics: the first one decides whether a model is better than another.
        data: features, windows and target.
        learning_rate: a number, or a `LearningRate` that falls with the model version.
        batch_size: examples a step; at least 2.
        local_steps: optimizer steps an update.
        proximal: strength mu of FedProx's mu/2 ||w - w_global||^2; 0 is off.
        clip_norm: gradients are clipped to this global norm; 0 is off.
        local: patterns of tensors that each gateway trains and keeps to itself, such as `["head.*"]` (FedPer) or the
            names of the norm layers (FedBN); `*` stands for anything, dots included.
        frozen: patterns of tensors that are not trained, such as `["backbone.*"]`, beside the parameters with
            `requires_grad=False`. They lie in the bundle and do not travel again. A submodule all of whose tensors
            are frozen runs as in evaluation: its BatchNorm uses the running statistics, its dropout is off.
        privacy: DP-SGD: the gradient of each example is clipped by itself, and noise is added.
        seed: of the first parameters, and of the data that the build checks the graphs with.
    """

    name: str
    model: nn.Module | Callable[[], nn.Module]
    loss: PerExample
    metrics: Sequence[Measure]
    data: DataSchema
    optimizer: Optimizer
    learning_rate: float | LearningRate
    description: str = ""
    batch_size: int = 64
    local_steps: int = 20
    proximal: float = 0.0
    clip_norm: float = 0.0
    local: Sequence[str] = ()
    frozen: Sequence[str] = ()
    privacy: PerExampleClipping | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses at once, on the author's line, what a manifest cannot hold.

        Raises:
            TypeError: when a field holds another kind of thing.
            ValueError: when its value is out of bounds, or a batch too small to train on.
        """
        for field, kind in (("data", DataSchema), ("optimizer", Optimizer), ("name", str)):
            if not isinstance(getattr(self, field), kind):
                raise TypeError(f"{field} must be a {kind.__name__}, not {getattr(self, field)!r}"[:200])
        if not self.metrics or not all(isinstance(each, Measure) for each in self.metrics):
            raise TypeError("metrics must be a list of at least one Measure, such as rmse() or accuracy()")
        if not callable(self.loss):
            raise TypeError(f"loss must be a function (output, target) -> (batch,), not {self.loss!r}"[:200])
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}, it must be at least 2")
        self._check_against_manifest()

    def _check_against_manifest(self) -> None:
        kinds = get_type_hints(Manifest, include_extras=True)
        for field in _AS_IN_MANIFEST:
            _check(field, getattr(self, field), kinds[field])
        for each in self.metrics:
            _check(f"metric {each.metric.name}", each.metric, Metric)
        if isinstance(self.learning_rate, LearningRate):
            _check("learning_rate", self.learning_rate, LearningRate)
        elif not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, it must be above 0")
        reserved = sorted(set(self.data.inputs) & set(RESERVED))
        if reserved:
            raise ValueError(f"an input may not be called {reserved[0]}: the graphs have one of that name")


def _check(field: str, value: object, kind: Any) -> None:
    """Structures do not check their own values when they are made, but when they are read."""
    try:
        msgspec.convert(msgspec.to_builtins(value), kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise ValueError(f"{field}: {error}".replace("`$", "`")) from None
