"""What every runtime offers; `onnx_runtime.py` is the one for boxes without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from numpy.typing import NDArray

from fieldfold.params import Vector

Batch: TypeAlias = Mapping[str, NDArray[Any]]
"""Graph input name -> array, batch dimension first: the manifest's inputs and targets."""


class Evaluation(msgspec.Struct, frozen=True):
    """Loss and metrics over a set of examples."""

    loss: float
    metrics: dict[str, float]
    num_examples: int


class Runtime(Protocol):
    """Trains, evaluates and predicts one bundle. Not thread-safe: one thread owns it.

    Attributes:
        name: `onnx` or `torch`.
        reason: why this one was chosen, for status.
    """

    name: str
    reason: str

    def begin(self, parameters: Vector, *, keep_optimizer: bool = False) -> None:
        """Starts a local run from the global `parameters` (float32, layout.num_params), also the proximal anchor."""

    def step(
        self, batch: Batch, *, learning_rate: float, seed: int, proximal: float = 0.0, clip_norm: float = 0.0
    ) -> float:
        """One optimizer step; returns the mean training loss of the batch before it."""

    def parameters(self) -> Vector:
        """A copy of the present local parameters."""

    def evaluate(self, parameters: Vector, data: Batch) -> Evaluation:
        """Loss and metrics of `parameters` on all rows of `data`, batched within."""

    def predict(self, parameters: Vector, inputs: Batch) -> NDArray[Any]:
        """The model's output, batch dimension first."""

    def self_check(self) -> None:
        """Repeats the manifest's self-check on this machine.

        Raises:
            BundleError: when the losses differ by more than its tolerance.
        """
