"""Where in the author's model an operator comes from: the module's name, the file, the line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.fx import traceback as fx_traceback
from torch.utils._python_dispatch import TorchDispatchMode

import fieldfold

_KEY = "origin"
_LIBRARIES = tuple(
    str(folder)
    for folder in (Path(torch.__file__).parent, Path(fieldfold.__file__).parent, Path(linecache.__file__).parent)
)
_MAX_SOURCE = 80


class Origin(NamedTuple):
    """A place in the author's source; empty where it is not known."""

    module: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """As it stands in an error: `in blocks.2 (model.py:41: return torch.fft.rfft(x))`."""
        source = linecache.getline(self.file, self.line).strip()[:_MAX_SOURCE] if self.line else ""
        place = f"{Path(self.file).name}:{self.line}" if self.line else ""
        inside = ": ".join(part for part in (place, source) if part)
        if not self.module:
            return f"in {inside}" if inside else ""
        return f"in {self.module} ({inside})" if inside else f"in {self.module}"

    @classmethod
    def of_frames(cls, frames: Iterator[tuple[FrameType, int]]) -> Origin:
        """From frames and their lines, the innermost first."""
        file, line = "", 0
        modules: list[nn.Module] = []
        for frame, number in frames:
            code, owner = frame.f_code, frame.f_locals.get("self")
            if not line and not code.co_filename.startswith((*_LIBRARIES, "<")):
                file, line = code.co_filename, number
            if isinstance(owner, nn.Module) and (not modules or modules[-1] is not owner):
                modules.append(owner)
        return cls(_path(modules), file, line)

    @classmethod
    def of_error(cls, error: BaseException) -> Origin:
        """Of the call that raised."""

        def frames(traceback: TracebackType | None) -> list[tuple[FrameType, int]]:
            found = []
            while traceback is not None:
                found.append((traceback.tb_frame, traceback.tb_lineno))
                traceback = traceback.tb_next
            return found[::-1]

        return cls.of_frames(iter(frames(error.__traceback__)))


def _path(modules: list[nn.Module]) -> str:
    """The name of the innermost module within the outermost, or its class where it is the model itself."""
    if not modules:
        return ""
    names = {id(module): name for name, module in modules[-1].named_modules()}
    return names.get(id(modules[0])) or type(modules[0]).__name__


def _stack() -> Iterator[tuple[FrameType, int]]:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 -- the only way to the callers
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


class OriginTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, the nodes of a traced graph bear the origin of their operator, those of the backward pass too.

    Attributes:
        last: origin of the operator that was called last: of the one that raised.
        operator: its name.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last = Origin()
        self.operator = ""
        self._by_sequence: dict[int, Origin] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Notes the origin and passes on."""
        self.operator = str(func)
        self.last = self._origin()
        with fx_traceback.annotate({_KEY: self.last}):
            return func(*args, **(kwargs or {}))

    def _origin(self) -> Origin:
        evaluated: Any = torch._C._current_autograd_node()  # noqa: SLF001 -- no public way
        if evaluated is not None:
            return self._by_sequence.get(evaluated._sequence_nr(), Origin())  # noqa: SLF001
        origin = Origin.of_frames(_stack())
        # the node of the backward pass was made just before its operator comes here
        self._by_sequence[torch._C._autograd._get_sequence_nr() - 1] = origin  # noqa: SLF001
        return origin


def tracked(function: Callable[..., Any], tracker: OriginTracker) -> Callable[..., Any]:
    """The function, with the tracker active within."""

    def run(*args: Any) -> Any:
        with fx_traceback.preserve_node_meta(), tracker:
            return function(*args)

    return run


def operators(graph: fx.GraphModule) -> Iterator[tuple[str, Origin, fx.Node]]:
    """Of every node that calls an operator its name, as `aten.add`, its origin, and the node."""
    for node in graph.graph.nodes:
        if node.op == "call_function":
            yield ".".join(str(node.target).split(".")[:2]), origin_of(node), node


def origin_of(node: fx.Node) -> Origin:
    """Where a node of a traced graph, or of what torch has broken it down into, comes from."""
    found: Origin = node.meta.get("custom", {}).get(_KEY, Origin())
    return found
