"""What every runtime offers: `onnx_runtime.py` for boxes without torch, `torch_runtime.py` for those with a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.params import Vector

Batch: TypeAlias = Mapping[str, NDArray[Any]]
"""Graph input name -> array, batch dimension first: the manifest's inputs and targets."""


class Evaluation(msgspec.Struct, frozen=True):
    """Loss and metrics over a set of examples.

    Attributes:
        by_class: the deciding metric and the number of examples of each of the task's `scored_classes`; 0.0 and 0
            for one without examples.
    """

    loss: float
    metrics: dict[str, float]
    num_examples: int
    by_class: tuple[tuple[float, int], ...] = ()


class Runtime(Protocol):
    """Trains, evaluates and predicts one bundle. Not thread-safe: one thread owns it.

    Attributes:
        name: `onnx` or `torch`.
        device: where it computes: `cpu`, `cuda`, or ONNX Runtime's providers.
        reason: why this one was chosen, for status.
    """

    name: str
    device: str
    reason: str

    def begin(
        self,
        parameters: Vector,
        *,
        local: Vector | None = None,
        anchor: Vector | None = None,
        keep_optimizer: bool = False,
    ) -> None:
        """Starts a local run from `parameters` (float32, layout.num_params).

        `anchor`, of the same length, is what the proximal term pulls towards; left out, it is where the run starts.
        `local` are the gateway's own values (float32, local.num_params); here and below, the bundle's first ones
        where it is left out.
        """

    def step(  # noqa: PLR0913 -- all that a step is told
        self,
        batch: Batch,
        *,
        learning_rate: float,
        seed: int,
        proximal: float = 0.0,
        clip_norm: float = 0.0,
        weights: NDArray[np.float32] | None = None,
        noise: Vector | None = None,
    ) -> float:
        """One optimizer step; returns the weighted mean training loss of the batch before it.

        `weights` has one number an example, from 0; 1 each where it is left out. An example of weight 0 moves no
        parameter, but what looks at a whole batch, such as BatchNorm, sees it: give a shorter batch where you can.
        `noise` (manifest.num_trained) comes to the sum of the clipped gradients, in tasks that clip each example's.
        """

    def parameters(self) -> Vector:
        """A copy of the present shared parameters."""

    def delta(self) -> Vector:
        """The present shared parameters minus those that the run began from, which must not have changed since."""

    def local(self) -> Vector:
        """A copy of the present local values, empty where the task has none. They never leave the gateway."""

    def evaluate(self, parameters: Vector, data: Batch, local: Vector | None = None) -> Evaluation:
        """Loss and metrics of `parameters` on all rows of `data`, batched within."""

    def predict(self, parameters: Vector, inputs: Batch, local: Vector | None = None) -> dict[str, NDArray[Any]]:
        """The model's outputs by the manifest's names, batch dimension first."""

    def self_check(self) -> None:
        """Repeats the manifest's self-check on this machine.

        Raises:
            BundleError: when the losses differ by more than its tolerance.
        """
