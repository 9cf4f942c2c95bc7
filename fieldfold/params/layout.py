"""Which tensor lies where in the flat vector that travels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldfold.params.vector import Vector

MAX_TENSORS = 10_000
MAX_PARAMS = 1_000_000_000

TensorName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{1,256}\Z")]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=MAX_PARAMS)]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor of the model.

    Attributes:
        name: as the model's author named it, e.g. `encoder.0.weight`.
        shape: its dimensions; `()` for a scalar.
        kind: `parameter` is trained by the optimizer, `buffer` follows the data (a BatchNorm mean).
    """

    name: TensorName
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]
    kind: Literal["parameter", "buffer"] = "parameter"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The order of the tensors in a flat vector: parameters first, then buffers.

    Raises:
        ValueError: when tensors repeat, lie in another order, or exceed MAX_PARAMS together.
    """

    tensors: Annotated[tuple[TensorSpec, ...], msgspec.Meta(max_length=MAX_TENSORS)]

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.tensors]
        if len(set(names)) != len(names):
            raise ValueError("a tensor name appears twice in the layout")
        kinds = [spec.kind for spec in self.tensors]
        if kinds != sorted(kinds, key=["parameter", "buffer"].index):
            raise ValueError("buffers must follow the parameters in the layout")
        if self.num_params > MAX_PARAMS:
            raise ValueError(f"the layout holds {self.num_params} elements, at most {MAX_PARAMS} are allowed")

    @cached_property
    def num_params(self) -> int:
        """Length of the flat vector, buffers included."""
        return sum(spec.size for spec in self.tensors)

    @cached_property
    def num_trained(self) -> int:
        """Length of the leading part that an optimizer changes; buffers follow it."""
        return sum(spec.size for spec in self.tensors if spec.kind == "parameter")

    @cached_property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """For each name the half-open range `(start, stop)` of its elements."""
        ranges: dict[str, tuple[int, int]] = {}
        start = 0
        for spec in self.tensors:
            ranges[spec.name] = (start, start + spec.size)
            start += spec.size
        return ranges

    def flatten(self, tensors: Mapping[str, NDArray[np.float32]]) -> Vector:
        """Copies named tensors into one new float32 vector of `num_params` elements.

        Raises:
            ValueError: when a tensor is missing or has another shape than the layout's.
        """
        flat = np.empty(self.num_params, np.float32)
        for spec in self.tensors:
            if spec.name not in tensors:
                raise ValueError(f"tensor {spec.name} is missing")
            value = tensors[spec.name]
            if value.shape != spec.shape:
                raise ValueError(f"tensor {spec.name} has shape {value.shape}, the layout says {spec.shape}")
            start, stop = self.offsets[spec.name]
            flat[start:stop] = value.reshape(-1)
        return flat

    def unflatten(self, flat: Vector) -> dict[str, NDArray[np.float32]]:
        """Views of `flat` (float32, `num_params` elements), one a tensor, in the layout's order.

        Raises:
            ValueError: when the vector has another length.
        """
        if flat.shape != (self.num_params,):
            raise ValueError(f"a vector of shape {flat.shape} does not fit {self.num_params} parameters")
        return {spec.name: flat[slice(*self.offsets[spec.name])].reshape(spec.shape) for spec in self.tensors}
