"""Dropout and noise from a hash of the step's seed: the same bits in every runtime.

An element's bits are the middle of (row + column) x (row' + column'), four numbers that are hashed from the seed, the
number of the call and the element's place: so most of the work is done on the edges of a tensor, not on all of it.

Everything stays below 2^31, or below 2^63 on the edges, so that torch and ONNX Runtime agree bit for bit: there is no
integer division, and no wrap-around.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

_SEED_MASK = (1 << 31) - 1
_EDGE_VALUES = 23_169  # (2 x 23,168)^2 is just below 2^31
_BITS = 20  # of the product; higher ones are not even, and neighbours would have them in common
_MASK = (1 << _BITS) - 1
_CALLS_AT_ONCE = 16  # keys are hashed for so many calls together


class UnseededError(Exception):
    """The forward pass draws random numbers in a way that cannot be seeded; the message names the function."""


def _permuted(value: Tensor) -> Tensor:
    """x(2x+1) modulo 2^31: RC6's permutation, in which every bit depends on all lower ones."""
    return (value * (2 * value + 1)) & _SEED_MASK


def call_keys(seed: Tensor, block: int) -> Tensor:
    """Keys of the calls `block x 16` to `block x 16 + 15`, int64 below 2^31; `seed` is an int64 scalar."""
    calls = (torch.arange(_CALLS_AT_ONCE, device=seed.device) + block * _CALLS_AT_ONCE) * 1_640_531_527
    keys = _permuted(((seed & _SEED_MASK) * 48_271 + calls) & _SEED_MASK)
    return _permuted((keys * 1_103_515_245 + 12_345) & _SEED_MASK)


def hashed_bits(shape: Sequence[int], key: Tensor) -> Tensor:
    """20 pseudo-random bits an element, int32, the upper ones good; `key` is a scalar of `call_keys`."""
    middle = (len(shape) + 1) // 2
    rows, columns = math.prod(shape[:middle]), math.prod(shape[middle:])
    places = torch.arange(2 * (columns + rows), device=key.device) * 747_796_405
    # a product with a float takes the upper bits, for which integers would have to be divided
    edges = _permuted((places + key) & _SEED_MASK).to(torch.float64) * (_EDGE_VALUES / (_SEED_MASK + 1))
    edges = edges.to(torch.int32)
    first = edges[2 * columns : 2 * columns + rows].unsqueeze(1) + edges[:columns]
    second = edges[2 * columns + rows :].unsqueeze(1) + edges[columns : 2 * columns]
    return (first * second & _MASK).reshape(shape)


class SeededRandomness(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, whatever is random draws from the hash, each call with a key of its own.

    It works on aten's operators and not on Python's functions: so it reaches the dropout inside attention and LSTMs.
    The backward pass belongs inside too where `has_scaled_masks`, and may be outside otherwise.

    Raises:
        UnseededError: (from the forward pass) when an operator draws random numbers that has no seeded form here.
    """

    def __init__(self, seed: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._num_calls = 0
        self._keys = seed
        self._harmless: dict[int, Any] = {}
        self.has_scaled_masks = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces what is random and passes on the rest."""
        # By identity: a recurrent layer comes here a million times, and to hash an operator is slow.
        if id(func) not in self._harmless:
            if func in self._SEEDED:
                return self._SEEDED[func](self, *args, **(kwargs or {}))
            if torch.Tag.nondeterministic_seeded in func.tags:
                raise UnseededError(func.overloadpacket.__name__)
            self._harmless[id(func)] = func
        return func(*args, **(kwargs or {}))

    def _bits(self, shape: Sequence[int]) -> Tensor:
        block, index = divmod(self._num_calls, _CALLS_AT_ONCE)
        self._num_calls += 1
        if index == 0:
            self._keys = call_keys(self._seed, block)
        return hashed_bits(tuple(shape), self._keys[index])

    def _kept(self, shape: Sequence[int], dropped: float) -> Tensor:
        return self._bits(shape) >= round(dropped * (_MASK + 1))

    def _uniform(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """In [0, 1), a multiple of 2^-20."""
        return self._bits(shape).to(dtype) * (1.0 / (_MASK + 1))

    def _normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Box and Muller, 1958."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self._uniform(shape, dtype)))
        return radius * torch.cos((2.0 * math.pi) * self._uniform(shape, dtype))

    # -- operators, with the names of their arguments --------------------------------------------------------------

    def _native_dropout(self, x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:  # noqa: FBT001
        if train is False or p == 0:
            return x.clone(), torch.ones_like(x)
        if p == 1:
            return x * 0, torch.zeros_like(x)
        # the mask already scaled: nothing but autograd sees it, and hands it to the function below
        self.has_scaled_masks = True
        mask = torch.where(self._kept(x.shape, p), 1.0 / (1.0 - p), 0.0).to(x.dtype)
        return x * mask, mask

    def _native_dropout_backward(self, gradient: Tensor, mask: Tensor, scale: float) -> Tensor:  # noqa: ARG002
        return gradient * mask

    def _bernoulli_of(self, x: Tensor, **_: Any) -> Tensor:
        return (self._uniform(x.shape, x.dtype) < x).to(x.dtype)

    def _bernoulli(self, x: Tensor, p: float = 0.5, **_: Any) -> Tensor:
        return self._kept(x.shape, 1.0 - p).to(x.dtype)

    def _bernoulli_into(self, x: Tensor, p: float = 0.5, **_: Any) -> Tensor:
        return x.copy_(self._bernoulli(x, p))

    def _rand(self, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return self._uniform(size, dtype or torch.get_default_dtype())

    def _rand_like(self, x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return self._uniform(x.shape, dtype or x.dtype)

    def _randn(self, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return self._normal(size, dtype or torch.get_default_dtype())

    def _randn_like(self, x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return self._normal(x.shape, dtype or x.dtype)

    def _uniform_into(self, x: Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> Tensor:
        return x.copy_(low + (high - low) * self._uniform(x.shape, x.dtype))

    def _normal_into(self, x: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
        return x.copy_(mean + std * self._normal(x.shape, x.dtype))

    _SEEDED: ClassVar[dict[Any, Callable[..., Any]]] = {
        aten.native_dropout.default: _native_dropout,
        aten.native_dropout_backward.default: _native_dropout_backward,
        aten.bernoulli.default: _bernoulli_of,
        aten.bernoulli.p: _bernoulli,
        aten.bernoulli_.float: _bernoulli_into,
        aten.rand.default: _rand,
        aten.rand_like.default: _rand_like,
        aten.randn.default: _randn,
        aten.randn_like.default: _randn_like,
        aten.uniform_.default: _uniform_into,
        aten.normal_.default: _normal_into,
    }
