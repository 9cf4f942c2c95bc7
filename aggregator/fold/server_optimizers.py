"""What the server makes of a step's vector: the step itself, or one with a memory.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2, for Adagrad, Adam and Yogi (without
correction of the bias; v begins at tau^2); Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data
Distribution for Federated Visual Classification", 2019, for momentum (FedAvgM).
"""

from __future__ import annotations

from typing import Annotated, Protocol, TypeAlias

import msgspec
import numpy as np

from fieldfold.params import Vector, as_vector, from_bytes, to_bytes

Beta: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Tau: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Moments(msgspec.Struct, frozen=True):
    """What an optimizer remembers, as float32 vectors of num_params; empty before the first step."""

    first: bytes = b""
    second: bytes = b""
    largest: bytes = b""


class ServerOptimizer(Protocol):
    """Settings are its fields; `step` is pure."""

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """The next memory, and what to add to the model; `gradient` points where the deltas point."""


class Sgd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sgd", tag_field="name"):
    """x <- x + eta g."""

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """Remembers nothing."""
        return moments, np.float32(learning_rate) * gradient


class Momentum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="momentum", tag_field="name"):
    """m <- beta m + g; x <- x + eta m. A steady g goes 1 / (1 - beta) as far as without."""

    beta: Beta = 0.9

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """See above."""
        first = np.float32(self.beta) * recalled(moments.first, gradient) + gradient
        return Moments(first=to_bytes(first)), np.float32(learning_rate) * first


class Adagrad(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="adagrad", tag_field="name"):
    """v <- v + g^2."""

    beta1: Beta = 0.0
    tau: Tau = 1e-3

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """The move eta m / (sqrt(v) + tau)."""
        second = recalled(moments.second, gradient, self.tau**2) + gradient * gradient
        return _adaptive(moments, gradient, second, self.beta1, self.tau, learning_rate)


class Adam(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="adam", tag_field="name"):
    """m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2."""

    beta1: Beta = 0.9
    beta2: Beta = 0.99
    tau: Tau = 1e-3

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """The move eta m / (sqrt(v) + tau)."""
        before = recalled(moments.second, gradient, self.tau**2)
        second = np.float32(self.beta2) * before + np.float32(1 - self.beta2) * (gradient * gradient)
        return _adaptive(moments, gradient, second, self.beta1, self.tau, learning_rate)


class Yogi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="yogi", tag_field="name"):
    """v <- v - (1 - beta2) g^2 sign(v - g^2): it forgets large gradients more slowly than Adam."""

    beta1: Beta = 0.9
    beta2: Beta = 0.99
    tau: Tau = 1e-3

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """The move eta m / (sqrt(v) + tau)."""
        before, squares = recalled(moments.second, gradient, self.tau**2), gradient * gradient
        second = before - np.float32(1 - self.beta2) * squares * np.sign(before - squares)
        return _adaptive(moments, gradient, second, self.beta1, self.tau, learning_rate)


class Amsgrad(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="amsgrad", tag_field="name"):
    """Adam with the largest v so far: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018."""

    beta1: Beta = 0.9
    beta2: Beta = 0.99
    tau: Tau = 1e-3

    def step(self, moments: Moments, gradient: Vector, learning_rate: float) -> tuple[Moments, Vector]:
        """The move eta m / (sqrt(largest v) + tau); v begins at 0."""
        before = recalled(moments.second, gradient)
        second = np.float32(self.beta2) * before + np.float32(1 - self.beta2) * (gradient * gradient)
        largest: Vector = np.maximum(recalled(moments.largest, gradient), second)
        following, update = _adaptive(moments, gradient, largest, self.beta1, self.tau, learning_rate)
        return Moments(following.first, to_bytes(second), to_bytes(largest)), update


AnyOptimizer: TypeAlias = Sgd | Momentum | Adagrad | Adam | Yogi | Amsgrad


def recalled(stored: bytes, like: Vector, value: float = 0.0) -> Vector:
    """A vector that was remembered, or the one before the first step, whose elements are all `value`."""
    return from_bytes(stored) if stored else np.full(like.size, value, np.float32)


def _adaptive(  # noqa: PLR0913, PLR0917 -- the letters of the paper
    moments: Moments, gradient: Vector, second: Vector, beta1: float, tau: float, learning_rate: float
) -> tuple[Moments, Vector]:
    first = np.float32(beta1) * recalled(moments.first, gradient) + np.float32(1 - beta1) * gradient
    update = np.float32(learning_rate) * first / (np.sqrt(second) + np.float32(tau))
    return Moments(to_bytes(first), to_bytes(second)), as_vector(update)
