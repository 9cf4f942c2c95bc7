"""Replaces functions of the author's forward pass, while it is traced, by forms that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fieldfold.task.compile.recurrent import NETWORKS
from fieldfold.task.compile.unsupported import UnsupportedError


def _adaptive_average(dims: int) -> Callable[..., Tensor]:
    """To a single value an ordinary mean: torch's own also says how it should lie in memory, which ONNX cannot."""
    original: Callable[..., Tensor] = {
        1: functional.adaptive_avg_pool1d,
        2: functional.adaptive_avg_pool2d,
        3: functional.adaptive_avg_pool3d,
    }[dims]

    def pool(x: Tensor, output_size: Any) -> Tensor:
        sizes = [output_size] * dims if isinstance(output_size, int) else list(output_size)
        if all(size == 1 for size in sizes):
            return x.mean(list(range(-dims, 0)), keepdim=True)
        return original(x, output_size)

    return pool


def _packed(*_: Any) -> Any:
    raise UnsupportedError("a packed sequence", "give windows of one length, padded where they are short")


_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    **NETWORKS,
    functional.adaptive_avg_pool1d: _adaptive_average(1),
    functional.adaptive_avg_pool2d: _adaptive_average(2),
    functional.adaptive_avg_pool3d: _adaptive_average(3),
    torch._pack_padded_sequence: _packed,  # noqa: SLF001 -- what torch.nn.utils.rnn calls
}


class ExportableForms(TorchFunctionMode):
    """While active, the functions above are replaced."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the replacement, or what was meant."""
        return _REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))
