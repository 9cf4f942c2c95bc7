"""From the steps of a program to calls of torch's operators, none of which can be any but a listed one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fieldfold.errors import BundleError
from fieldfold.task import program as form
from fieldfold.task.operators import ITEM, OPERATORS, RECURRENT, SYMBOLIC
from fieldfold.task.program import Argument, Constant, Program, Programs, Step
from fieldfold.task.torch_recurrent import RECURRENCES

_LARGEST = 1 << 63
_NUMBERS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
_AGAIN = "build the bundle again, or train with the runtime onnx"


class Instruction(NamedTuple):
    """`registers[target] = function(*take(registers), **options)`; then the registers in `spent` are emptied."""

    function: Callable[..., Any]
    take: Callable[[list[Any]], Sequence[Any]]
    options: dict[str, Any]
    target: int
    spent: tuple[int, ...]


class Assembly(NamedTuple):
    """Behind the registers of inputs, constants and steps lie further ones, which begin with the values of `rest`."""

    code: list[Instruction]
    rest: list[Any]


def assemble(name: str, programs: Programs, device: torch.device) -> Assembly:
    """The instructions of the program `name`.

    Raises:
        BundleError: when it names an operator that is not listed or that this torch lacks, or writes into its inputs.
    """
    program: Program = getattr(programs, name)
    functions = [_function(each) for each in programs.operators]
    _refuse_writing_to_inputs(name, program, len(programs.constants), functions)
    first = len(program.inputs) + len(programs.constants)
    assembler = _Assembler(first + len(program.steps), device)
    for target, step in enumerate(program.steps, first):
        assembler.add(functions[step.operator], step, target)
    kept = {*range(first), *(register for _, register in program.outputs)}
    return Assembly(_with_spent(assembler.code, assembler.sources, kept), assembler.rest)


def constant_tensor(constant: Constant, device: torch.device) -> Tensor:
    """The tensor, on the device."""
    if constant.dtype == "bool":
        values = np.frombuffer(constant.data, np.uint8) != 0
    else:
        little_endian = np.dtype(constant.dtype).newbyteorder("<")
        values = np.frombuffer(constant.data, little_endian).astype(constant.dtype)
    return torch.from_numpy(values.reshape(constant.shape)).to(device)


class _Assembler:
    """Literals get registers of their own, so that each step's arguments are fetched in one go."""

    def __init__(self, num_registers: int, device: torch.device) -> None:
        self.code: list[Instruction] = []
        self.sources: list[tuple[int, ...]] = []
        self.rest: list[Any] = []
        self._num_registers = num_registers
        self._device = device
        self._literals: dict[Any, int] = {}

    def add(self, function: Callable[..., Any], step: Step, target: int) -> None:
        """Appends the instruction of one step, after those that make its lists."""
        fetched = {name: value for name, value in step.options.items() if _refers(value)}
        options = {name: self._value(value) for name, value in step.options.items() if name not in fetched}
        if fetched:
            function = _by_name(function, len(step.arguments), tuple(fetched))
        sources = [self._register(argument) for argument in (*step.arguments, *fetched.values())]
        self._append(function, sources, options, target)

    def _append(
        self, function: Callable[..., Any], sources: Sequence[int], options: dict[str, Any], target: int
    ) -> None:
        self.code.append(Instruction(function, _getter(sources), options, target, ()))
        self.sources.append(tuple(sources))

    def _register(self, argument: Argument) -> int:
        if isinstance(argument, tuple) and _refers(argument):
            sources = [self._register(atom) for atom in argument]
            target = self._new_register(None)
            self._append(lambda *values: list(values), sources, {}, target)
            return target
        if isinstance(argument, str) and argument.startswith(form.REGISTER):
            return form.register(argument)
        key = (argument, type(argument), tuple(map(type, argument)) if isinstance(argument, tuple) else ())
        if key not in self._literals:
            self._literals[key] = self._new_register(self._value(argument))
        return self._literals[key]

    def _new_register(self, value: Any) -> int:
        self.rest.append(value)
        return self._num_registers + len(self.rest) - 1

    def _value(self, argument: Argument) -> Any:
        if isinstance(argument, tuple):
            return [self._value(atom) for atom in argument]
        if not isinstance(argument, str):
            return argument
        mark, word = argument[:1], argument[1:]
        if mark == form.TEXT:
            return word
        if mark == form.NUMBER and word in _NUMBERS:
            return _NUMBERS[word]
        if mark == form.WORD and word == form.DEVICE:
            return self._device
        if mark == form.WORD and word in (*form.DTYPES, *form.LAYOUTS, *form.MEMORY_FORMATS):
            return getattr(torch, word)
        raise BundleError(f"programs.torch holds the argument {argument[:40]!r}", _AGAIN)


def _refers(argument: Argument) -> bool:
    atoms = argument if isinstance(argument, tuple) else (argument,)
    return any(isinstance(atom, str) and atom.startswith(form.REGISTER) for atom in atoms)


def _getter(sources: Sequence[int]) -> Callable[[list[Any]], Sequence[Any]]:
    if not sources:
        return lambda _: ()
    if len(sources) == 1:  # an itemgetter of one index gives the item and no sequence
        return operator.itemgetter(slice(sources[0], sources[0] + 1))
    return operator.itemgetter(*sources)


def _by_name(function: Callable[..., Any], count: int, names: tuple[str, ...]) -> Callable[..., Any]:
    """Takes what follows the first `count` arguments by name."""

    def call(*values: Any, **options: Any) -> Any:
        return function(*values[:count], **dict(zip(names, values[count:], strict=True)), **options)

    return call


def _function(name: str) -> Callable[..., Any]:
    if name == ITEM:
        return _item
    if name in SYMBOLIC:
        return _on_sizes(SYMBOLIC[name])
    if name in RECURRENT:
        return RECURRENCES[name]
    if name not in OPERATORS:
        raise BundleError(f"the bundle's programs.torch calls {name[:100]!r}, which is not allowed", _AGAIN)
    _, packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if found is None:
        raise BundleError(f"torch {torch.__version__} has no operator {name}", "install another version of torch")
    function: Callable[..., Any] = found
    return function


def _item(values: Any, index: Any) -> Any:
    if not isinstance(values, tuple | list) or not isinstance(index, int):
        raise TypeError("an item is taken of what is no list of results")
    return values[index]


def _on_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, of numbers below 2^63 only: what is repeated may not grow without end."""

    def call(*values: Any) -> Any:
        if not all(isinstance(value, int | float) for value in values):
            raise TypeError(f"{function.__name__} is applied to what is no size")
        result = function(*values)
        if abs(result) >= _LARGEST:
            raise OverflowError("a size is too large")
        return result

    return call


def _refuse_writing_to_inputs(
    name: str, program: Program, num_constants: int, functions: Sequence[Callable[..., Any]]
) -> None:
    """Operators may write only into what the program itself has made: inputs are the caller's."""
    own = [False] * (len(program.inputs) + num_constants)
    for step in program.steps:
        function = functions[step.operator]
        if isinstance(function, torch._ops.OpOverload):  # noqa: SLF001 -- torch has no public name for it
            schema = function._schema.arguments  # noqa: SLF001 -- nor for an operator's schema
            named = {argument.name: argument for argument in schema}
            given = [
                *zip(schema, step.arguments, strict=False),
                *((named.get(k), v) for k, v in step.options.items()),
            ]
            aliases = [(argument.alias_info, value) for argument, value in given if argument is not None]
            shared = [(alias.is_write, value) for alias, value in aliases if alias is not None]
        else:
            shared = [(False, value) for value in step.arguments]
        for is_written, value in shared:
            if is_written and not all(own[source] for source in _sources(value)):
                raise BundleError(f"the bundle's program {name} writes into its inputs", _AGAIN)
        own.append(all(own[source] for _, value in shared for source in _sources(value)))


def _sources(value: Argument) -> Iterable[int]:
    atoms = value if isinstance(value, tuple) else (value,)
    return [form.register(atom) for atom in atoms if isinstance(atom, str) and atom.startswith(form.REGISTER)]


def _with_spent(code: Sequence[Instruction], sources: Sequence[tuple[int, ...]], kept: set[int]) -> list[Instruction]:
    """Values are let go with their last reader, as Python's own variables would not be."""
    made = {instruction.target for instruction in code} - kept
    seen: set[int] = set()
    result = []
    for instruction, read in zip(reversed(code), reversed(sources), strict=True):
        last = {register for register in (*read, instruction.target) if register in made and register not in seen}
        seen |= last
        result.append(instruction._replace(spent=tuple(last)))
    return result[::-1]
