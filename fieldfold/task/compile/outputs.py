"""What an author's forward pass gives, as named tensors: one, a tuple of them, or a dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from fieldfold.errors import CompileError
from fieldfold.sensors.arrays import Array
from fieldfold.task.signature import OUTPUT

_DTYPES: dict[str, Literal["float32", "int64"]] = {"torch.float32": "float32", "torch.int64": "int64"}
_HINT = "let forward return a tensor, a tuple of tensors, or a dict of tensors, each with the batch dimension first"


def named_outputs(output: Any) -> dict[str, Tensor]:
    """Port name -> tensor, in the order in which the model gives them.

    Raises:
        CompileError: when it is something else.
    """
    if isinstance(output, Tensor):
        return {OUTPUT: output}
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, tuple | list):
        items = [(str(index), tensor) for index, tensor in enumerate(output)]
    else:
        raise CompileError(f"the model's forward gives a {type(output).__name__}", _HINT)
    for key, tensor in items:
        if not isinstance(tensor, Tensor):
            raise CompileError(f"the model's forward gives a {type(tensor).__name__} as {key}", _HINT)
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", key):
            raise CompileError(
                f"the model's forward gives an output called {key!r}", "use a word of letters and digits"
            )
    if not items:
        raise CompileError("the model's forward gives no tensor at all", _HINT)
    return {f"{OUTPUT}.{key}": tensor for key, tensor in items}


def output_arrays(outputs: Mapping[str, Tensor], rows: int) -> tuple[Array, ...]:
    """The manifest's outputs, from those of a float32 model for a batch of `rows`.

    Raises:
        CompileError: when one lacks the batch dimension, or is neither float32 nor int64.
    """
    found = []
    for name, tensor in outputs.items():
        if tensor.dim() == 0 or tensor.shape[0] != rows:
            raise CompileError(f"{name} of the model has shape {tuple(tensor.shape)} for {rows} examples", _HINT)
        dtype = _DTYPES.get(str(tensor.dtype))
        if dtype is None:
            raise CompileError(f"{name} of the model is {tensor.dtype}", "give float32 or int64 tensors")
        found.append(Array(name, dtype, tuple(tensor.shape[1:])))
    return tuple(found)
