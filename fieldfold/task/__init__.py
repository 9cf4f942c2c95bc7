"""The task bundle: a manifest, graphs and first parameters, compiled from a PyTorch model and run without PyTorch."""

from fieldfold.task.bundle import Bundle
from fieldfold.task.opening import RuntimeSettings, open_runtime

__all__ = ["Bundle", "RuntimeSettings", "open_runtime"]
