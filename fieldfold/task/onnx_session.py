"""One graph of a bundle on ONNX Runtime: opened small, checked against the manifest, with one kind of error."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from fieldfold.errors import BundleError, ConfigError
from fieldfold.task.onnx_form import check_form
from fieldfold.task.signature import Port

# each is a class of its own directly under Exception
_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    _native.EPFail,
    _native.EngineError,
    _native.Fail,
    _native.InvalidArgument,
    _native.InvalidGraph,
    _native.InvalidProtobuf,
    _native.ModelLoaded,
    _native.NoModel,
    _native.NoSuchFile,
    _native.NotImplemented,
    _native.RuntimeException,
)
_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
_FATAL_ONLY = 4
_SHRINKING = onnxruntime.RunOptions()
_SHRINKING.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
_SHRINKING.log_severity_level = _FATAL_ONLY


@contextlib.contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Turns ONNX Runtime's exceptions into BundleError.

    Raises:
        BundleError: saying `what` was being done and ONNX Runtime's first line.
    """
    try:
        yield
    except _FAILURES as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"onnxruntime {onnxruntime.__version__} cannot {what}: {first_line[:300]}",
            "check the bundle with `fieldfold task check`, or install a newer onnxruntime",
        ) from error


def check_providers(providers: Sequence[str]) -> None:
    """Refuses what this onnxruntime lacks; it would silently compute on the CPU instead.

    Raises:
        ConfigError: naming what there is.
    """
    available = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in available:
            raise ConfigError(
                f"onnxruntime {onnxruntime.__version__} has no provider {provider[:60]!r}",
                f"it has {', '.join(available)}; others come with other builds of onnxruntime",
            )


class GraphSession:
    """A loaded graph and the names it really takes and gives.

    Attributes:
        inputs: names of the ports that the graph takes; a graph may leave out what it does not need.
        outputs: likewise, in the graph's order.
    """

    def __init__(self, name: str, graph: bytes, providers: Sequence[str], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # the arena: without it the activations of every step are pages that the system clears anew (measured: up to
        # half of a step); the pattern would save 3 % more time for a third more memory
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _FATAL_ONLY
        self.name = name
        check_form(name, graph)
        with failures_named(f"load {name}"):
            self.native = onnxruntime.InferenceSession(graph, options, providers=list(providers))
        self.inputs = [port.name for port in self.native.get_inputs()]
        self.outputs = [port.name for port in self.native.get_outputs()]

    def check_inputs(self, ports: Sequence[Port]) -> None:
        """Compares what the graph takes with what the manifest says of it.

        Raises:
            BundleError: when the graph takes something else.
        """
        self._compare("takes", self.native.get_inputs(), ports)

    def check_outputs(self, ports: Sequence[Port], optional: Collection[str] = ()) -> None:
        """Compares what the graph gives with what the manifest says of it; only `optional` ports may be missing.

        Raises:
            BundleError: when the graph gives something else, or less.
        """
        self._compare("gives", self.native.get_outputs(), ports)
        missing = {port.name for port in ports} - set(self.outputs) - set(optional)
        if missing:
            self._mismatch(f"does not give {min(missing)}")

    def run(self, feeds: Mapping[str, NDArray[Any]], *, last: bool = False) -> dict[str, NDArray[Any]]:
        """Outputs by name; feeds that the graph does not take are left out. The `last` run gives its memory back.

        Raises:
            BundleError: when ONNX Runtime fails.
        """
        with failures_named(f"run {self.name}"):
            values = self.native.run(
                self.outputs, {name: feeds[name] for name in self.inputs}, _SHRINKING if last else None
            )
        return dict(zip(self.outputs, values, strict=True))

    def _compare(self, verb: str, found: Sequence[Any], expected: Sequence[Port]) -> None:
        by_name = {port.name: port for port in expected}
        for value in found:
            port = by_name.get(value.name)
            if port is None:
                self._mismatch(f"{verb} {value.name[:100]}, which the manifest does not know")
            elif _TYPES.get(value.type) != port.dtype or not _shape_fits(value.shape, port.shape):
                self._mismatch(f"{verb} {port.name} as {value.type} of shape {value.shape}")

    def _mismatch(self, what: str) -> None:
        raise BundleError(f"the bundle's {self.name} {what}", "build the bundle again: graph and manifest disagree")


def _shape_fits(found: Sequence[int | str | None], expected: Sequence[int | None]) -> bool:
    return len(found) == len(expected) and all(
        not isinstance(size, int) if wanted is None else size == wanted
        for size, wanted in zip(found, expected, strict=True)
    )
