"""The section `programs.torch`: the three graphs as lists of torch operators, JSON.

    {"operators": ["aten.mul.Tensor", ...],
     "constants": [{"dtype": "int64", "shape": [2], "data": <base64, little-endian>}, ...],
     "train":    {"inputs": ["p.weight", ...],
                  "steps": [[0, ["%0", "%3"], {"dtype": "@int64"}], ...],
                  "outputs": [["loss", 17], ...]},
     "evaluate": ..., "predict": ...}

A program writes its values into registers and never twice into one: first come its inputs, then the constants, then
one value for each step. A step names its operator by position in `operators` and gives arguments by position and by
name: numbers, true, false, null, lists of these, and texts, of which the first character says what they are:

| text | is |
|---|---|
| `%12` | the value in register 12 |
| `@float32` | a dtype, or `@contiguous_format` and the like; `@device` is the device that the program runs on |
| `#inf`, `#-inf`, `#nan` | the number that JSON has no word for |
| `'tanh` | the text behind the mark |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import msgspec

from fieldfold.errors import BundleError

MAX_STEPS = 200_000
MAX_DIMS = 8

REGISTER, WORD, NUMBER, TEXT = "%", "@", "#", "'"
DEVICE = "device"
DTYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")
LAYOUTS = ("strided",)
MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")

Atom: TypeAlias = int | float | bool | str | None
Argument: TypeAlias = Atom | tuple[Atom, ...]
GraphName: TypeAlias = Literal["train", "evaluate", "predict"]

_ITEM_BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
_AGAIN = "build the bundle again"


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor that is part of the program: `data` in C order, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One operator applied; `operator` is its place in `Programs.operators`."""

    operator: Annotated[int, msgspec.Meta(ge=0)]
    arguments: tuple[Argument, ...]
    options: dict[str, Argument] = {}


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One graph. `outputs` holds names and registers."""

    inputs: tuple[str, ...]
    steps: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MAX_STEPS)]
    outputs: tuple[tuple[str, int], ...]


class Programs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole section; the constants are shared."""

    operators: tuple[str, ...]
    constants: tuple[Constant, ...]
    train: Program
    evaluate: Program
    predict: Program


def encode(programs: Programs) -> bytes:
    """The section's bytes."""
    return msgspec.json.encode(programs)


def decode(content: bytes) -> Programs:
    """Reads the section, and checks all of it that can be checked without torch.

    Raises:
        BundleError: when it is not well formed.
    """
    try:
        programs = msgspec.json.decode(content, type=Programs)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"the bundle's programs.torch is not valid: {error}", _AGAIN) from error
    for constant in programs.constants:
        if (
            constant.dtype not in DTYPES
            or not 0 <= len(constant.shape) <= MAX_DIMS
            or min(constant.shape, default=0) < 0
        ):
            raise BundleError(f"programs.torch holds a constant of dtype {constant.dtype[:40]}", _AGAIN)
        if len(constant.data) != math.prod(constant.shape) * _ITEM_BYTES[constant.dtype]:
            raise BundleError(
                f"programs.torch holds a constant that does not have its shape {constant.shape}", _AGAIN
            )
    for name in ("train", "evaluate", "predict"):
        _check_program(name, getattr(programs, name), programs)
    return programs


def references(step: Step) -> Iterator[int]:
    """The registers that a step reads, one after the other.

    Raises:
        BundleError: when one is no number.
    """
    for argument in (*step.arguments, *step.options.values()):
        for atom in argument if isinstance(argument, tuple) else (argument,):
            if isinstance(atom, str) and atom.startswith(REGISTER):
                yield register(atom)


def register(atom: str) -> int:
    """The number in `%12`.

    Raises:
        BundleError: when there is none.
    """
    digits = atom[1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise BundleError(f"programs.torch names the register {atom[:40]!r}", _AGAIN)
    return int(digits)


def _check_program(name: str, program: Program, programs: Programs) -> None:
    filled = len(program.inputs) + len(programs.constants)
    if len(set(program.inputs)) != len(program.inputs):
        raise BundleError(f"the program {name} takes an input twice", _AGAIN)
    for step in program.steps:
        if step.operator >= len(programs.operators):
            raise BundleError(
                f"the program {name} has a step of operator {step.operator}, which is not listed", _AGAIN
            )
        if any(source >= filled for source in references(step)):
            raise BundleError(f"the program {name} reads a register before it is filled", _AGAIN)
        filled += 1
    for output, source in program.outputs:
        if not 0 <= source < filled:
            raise BundleError(f"the program {name} gives {output[:100]} from a register that is never filled", _AGAIN)
    if len({output for output, _ in program.outputs}) != len(program.outputs):
        raise BundleError(f"the program {name} gives an output twice", _AGAIN)
