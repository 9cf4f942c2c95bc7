"""A program of the section `programs.torch`, made ready to run on a device.

`torch.export.load` would do it in one line, but not with a file from the network: it unpickles, evaluates expressions
and looks names up in all of torch (docs/ARCHITECTURE.md). Here a step can only be one of the listed operators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldfold.errors import BundleError
from fieldfold.task.program import GraphName, Program, Programs
from fieldfold.task.signature import Port
from fieldfold.task.torch_assembly import assemble

_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@contextlib.contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Turns torch's exceptions into BundleError.

    Raises:
        BundleError: saying `what` was being done and torch's first line.
    """
    try:
        yield
    except _FAILURES as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleError(
            f"torch {torch.__version__} cannot {what}: {first_line[:300]}",
            "check the bundle with `fieldfold task check`, or train with the runtime onnx",
        ) from error


class TorchProgram:
    """One graph on one device.

    Args:
        constants: those of `programs`, on the device.

    Attributes:
        name: `train`, `evaluate` or `predict`.
        inputs: names of the ports that it takes.
        outputs: names of what it gives, in order.

    Raises:
        BundleError: when it names an operator that is not listed or that this torch lacks, or writes into its inputs.
    """

    def __init__(
        self, name: GraphName, programs: Programs, constants: Sequence[Tensor], device: torch.device
    ) -> None:
        program: Program = getattr(programs, name)
        self.name = name
        self.inputs = program.inputs
        self.outputs = [output for output, _ in program.outputs]
        self._results = [register for _, register in program.outputs]
        self._code, self._rest = assemble(name, programs, device)
        self._constants = constants
        self._unfilled = [None] * len(program.steps)

    def check(self, takes: Sequence[Port], gives: Sequence[Port]) -> None:
        """Compares names with what the manifest says; inputs that a program does not need may be missing.

        Raises:
            BundleError: when they differ.
        """
        for verb, found, expected in (("takes", self.inputs, takes), ("gives", self.outputs, gives)):
            unknown = sorted(set(found) - {port.name for port in expected})
            if unknown:
                raise self._mismatch(f"{verb} {unknown[0][:100]}, which the manifest does not know")
        missing = {port.name for port in gives} - set(self.outputs)
        if missing:
            raise self._mismatch(f"does not give {min(missing)}")

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name; feeds that the program does not take are left out.

        Raises:
            BundleError: when an operator fails.
        """
        registers: list[Any] = [feeds[name] for name in self.inputs]
        registers += [*self._constants, *self._unfilled, *self._rest]
        with torch.inference_mode(), failures_named(f"run {self.name}"):
            for function, take, options, target, spent in self._code:
                registers[target] = function(*take(registers), **options)
                for register in spent:
                    registers[register] = None
        return {name: registers[register] for name, register in zip(self.outputs, self._results, strict=True)}

    def expect(self, outputs: Mapping[str, Tensor], ports: Sequence[Port], rows: int) -> None:
        """Compares dtype and shape of outputs with the manifest's; `rows` is the size of the batch.

        Raises:
            BundleError: when they differ.
        """
        for port in ports:
            value: object = outputs[port.name]
            if not isinstance(value, Tensor) or value.dtype != getattr(torch, port.dtype):
                raise self._mismatch(f"gives {port.name} as {getattr(value, 'dtype', type(value).__name__)}")
            if value.shape != tuple(rows if size is None else size for size in port.shape):
                raise self._mismatch(f"gives {port.name} of shape {tuple(value.shape)}")

    def _mismatch(self, what: str) -> BundleError:
        return BundleError(
            f"the bundle's program {self.name} {what}", "build the bundle again: program and manifest disagree"
        )
