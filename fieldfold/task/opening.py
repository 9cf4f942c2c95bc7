"""Opens a bundle with the runtime that this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldfold.errors import BundleError
from fieldfold.task.bundle import Bundle

if TYPE_CHECKING:
    from fieldfold.task.runtime import Runtime


def open_runtime(bundle: Bundle, *, threads: int = 1) -> Runtime:
    """A runtime for `bundle`; ONNX Runtime is imported here and not before.

    Args:
        bundle: what to train, evaluate or predict with.
        threads: threads within an operator.

    Raises:
        BundleError: when onnxruntime is not installed.
    """
    try:
        from fieldfold.task.onnx_runtime import OnnxRuntime  # noqa: PLC0415 -- 20 MB that an aggregator need not load
    except ImportError as error:
        raise BundleError(f"onnxruntime cannot be imported: {error}", "install the package `onnxruntime`") from error
    return OnnxRuntime(bundle, threads=threads, reason="onnxruntime is installed")
