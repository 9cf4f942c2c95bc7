"""Dropout and noise from a counter-based hash of the step's seed: the same bits in every runtime.

Only Mul, Add and And on int64 below 2^63 are used, so that torch and ONNX Runtime agree bit for bit: there is no
integer division, and no wrap-around.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_MASK = 0x7FFF_FFFF  # the hash lives in 31 bits
_UNIT_BITS = 24  # a float32 holds 24 bits exactly
_UNIT_MASK = _MASK & ~((1 << (31 - _UNIT_BITS)) - 1)
_KEY_ROUNDS = ((1_103_515_245, 12_345), (1_664_525, 1_013_904_223), (22_695_477, 1))

_DROPOUT_SPATIAL_DIMS: dict[Callable[..., Any], int | None] = {
    functional.dropout: None,
    torch.dropout: None,
    functional.dropout1d: 1,
    functional.dropout2d: 2,
    functional.dropout3d: 3,
}
_UNSEEDED = frozenset(
    {
        functional.alpha_dropout,
        functional.feature_alpha_dropout,
        functional.rrelu,
        functional.gumbel_softmax,
        torch.bernoulli,
        torch.multinomial,
        torch.normal,
        torch.poisson,
        torch.rand,
        torch.randint,
        torch.randint_like,
        torch.randn,
        torch.randperm,
        Tensor.bernoulli_,
        Tensor.exponential_,
        Tensor.normal_,
        Tensor.random_,
        Tensor.uniform_,
    }
)


class UnseededError(Exception):
    """The forward pass draws random numbers in a way that cannot be seeded; the message names the function."""


def _permute(value: Tensor, constant: int | Tensor) -> Tensor:
    """x(2x+1) + c modulo 2^31: RC6's permutation, in which every bit depends on all lower ones."""
    return (value * (2 * value + 1) + constant) & _MASK


def hashed_bits(count: int, seed: Tensor, stream: int) -> Tensor:
    """31 pseudo-random bits, int64, shape `(count,)`; `seed` is an int64 scalar, `stream` the number of the call.

    The upper bits are good, the lowest are not: use them by size.
    """
    key = (seed & _MASK) * 48_271 + stream * 7_919 + 1
    keys = []
    for multiplier, constant in _KEY_ROUNDS:
        key = (_permute(key & _MASK, 0) * multiplier + constant) & _MASK
        keys.append(key)
    bits = (torch.arange(count, device=seed.device) * 747_796_405 + keys[2]) & _MASK
    # a key in each round: with the first alone, two seeds would give shifted copies of one sequence
    return _permute(_permute(bits, keys[0]), keys[1])


class SeededRandomness(TorchFunctionMode):
    """While active, dropout, `rand_like` and `randn_like` draw from the hash, each call from its own stream.

    Raises:
        UnseededError: (from the forward pass) when another random function is called.
    """

    def __init__(self, seed: Tensor) -> None:
        super().__init__()
        self._seed = seed
        self._stream = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces what is random and passes on the rest."""
        kwargs = kwargs or {}
        if func in _DROPOUT_SPATIAL_DIMS:
            return self._dropout(_DROPOUT_SPATIAL_DIMS[func], *args, **kwargs)
        if func is torch.rand_like:
            return self._uniform(args[0])
        if func is torch.randn_like:
            return self._normal(args[0])
        if func in _UNSEEDED:
            raise UnseededError(getattr(func, "__name__", str(func)))
        return func(*args, **kwargs)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        self._stream += 1
        return hashed_bits(math.prod(shape), self._seed, self._stream).reshape(shape)

    def _dropout(  # noqa: PLR0913 -- torch's signature
        self,
        spatial_dims: int | None,
        input: Tensor,  # noqa: A002 -- the name by which torch's callers pass it
        p: float = 0.5,
        training: bool = True,  # noqa: FBT001, FBT002 -- torch's signature
        inplace: bool = False,  # noqa: ARG002, FBT001, FBT002 -- torch's signature
        *,
        train: bool = True,
    ) -> Tensor:
        if not (training and train) or p == 0:
            return input
        if p == 1:
            return input * 0
        shape = tuple(input.shape)
        if spatial_dims is not None:
            kept = len(shape) - spatial_dims
            shape = (*shape[:kept], *[1] * spatial_dims)
        keep = self._bits(shape) >= round(p * (_MASK + 1))
        return input * (keep.to(input.dtype) * (1.0 / (1.0 - p)))

    def _uniform(self, like: Tensor) -> Tensor:
        """In [0, 1), a multiple of 2^-24."""
        return (self._bits(tuple(like.shape)) & _UNIT_MASK).to(like.dtype) * (1.0 / (_MASK + 1))

    def _normal(self, like: Tensor) -> Tensor:
        """Box and Muller, 1958."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self._uniform(like)))
        return radius * torch.cos((2.0 * math.pi) * self._uniform(like))
