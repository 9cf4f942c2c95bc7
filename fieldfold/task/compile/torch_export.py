"""Writes a traced graph as a program of `programs.torch`: operators and numbers, no names of files, no code."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from fieldfold.errors import CompileError
from fieldfold.task import program as form
from fieldfold.task.compile.decompositions import decomposition_table
from fieldfold.task.compile.export import Example, quiet_exporter, trace
from fieldfold.task.compile.refusals import formless
from fieldfold.task.operators import IDENTITIES, ITEM, OPERATORS, RECURRENT, SYMBOLIC
from fieldfold.task.program import Argument, Atom, Constant, GraphName, Program, Programs, Step

_TO_THE_END = 2**63 - 1
_ON_SIZES: Mapping[object, str] = {
    torch.sym_max: "sym.max",
    torch.sym_min: "sym.min",
    torch.sym_int: "sym.int",
    torch.sym_float: "sym.float",
    torch.sym_not: "sym.not",
    operator.getitem: ITEM,
} | {function: name for name, function in SYMBOLIC.items()}  # fmt: skip
_RECURRENT = "fieldfold_recurrent."  # the library in which the compiler defines them
_INSTEAD = {
    "aten.lift_fresh_copy.default": "aten.clone.default",
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
    "aten.new_empty.default": "aten.new_zeros.default",
}


class Traced(NamedTuple):
    """A graph, and what its inputs and outputs are called."""

    graph: fx.GraphModule
    inputs: Sequence[str]
    outputs: Sequence[str]


def trace_for_torch(
    what: str, function: Callable[..., tuple[Tensor, ...]], examples: Sequence[Example], output_names: Sequence[str]
) -> Traced:
    """As for ONNX, but whatever a program may name stays whole: torch's own kernels are the faster ones.

    Raises:
        CompileError: naming `what` when the function cannot be traced.
    """
    rules = {target: rule for target, rule in decomposition_table().items() if str(target) not in OPERATORS}
    with quiet_exporter():
        graph = trace(what, function, examples, rules)
    return Traced(graph, [example.name for example in examples], output_names)


def write_programs(train: Traced, evaluate: Traced, predict: Traced) -> bytes:
    """The section `programs.torch`.

    Raises:
        CompileError: when an operator, or an argument of one, has no place in it.
    """
    names: tuple[GraphName, ...] = ("train", "evaluate", "predict")
    graphs = dict(zip(names, (train, evaluate, predict), strict=True))
    tables = _Tables()
    for traced in graphs.values():
        _simplify(traced.graph)
        for node in traced.graph.graph.find_nodes(op="get_attr"):
            tables.add_constant(traced.graph, node)
    programs = {name: _program(traced, tables) for name, traced in graphs.items()}
    return form.encode(Programs(tuple(tables.operators), tuple(tables.constants), **programs))


class _Tables:
    """What the programs share: operators and constants, each once."""

    def __init__(self) -> None:
        self.operators: dict[str, int] = {}
        self.constants: dict[Constant, int] = {}

    def operator(self, name: str) -> int:
        return self.operators.setdefault(name, len(self.operators))

    def add_constant(self, graph: fx.GraphModule, node: fx.Node) -> None:
        constant = _constant(getattr(graph, str(node.target), None))
        node.meta["constant"] = self.constants.setdefault(constant, len(self.constants))


def _simplify(module: fx.GraphModule) -> None:
    """Removes what only autograd needed, views of everything, and what nobody reads."""
    for node in list(module.graph.nodes):
        if str(node.target) in IDENTITIES or _views_everything(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()


def _views_everything(node: fx.Node) -> bool:
    return str(node.target) == "aten.slice.Tensor" and node.args[2:] == (0, _TO_THE_END)


def _program(traced: Traced, tables: _Tables) -> Program:
    placeholders = traced.graph.graph.find_nodes(op="placeholder")
    taken = [(name, node) for name, node in zip(traced.inputs, placeholders, strict=True) if node.users]
    registers: dict[fx.Node, int] = {node: index for index, (_, node) in enumerate(taken)}
    steps: list[Step] = []
    outputs: list[tuple[str, int]] = []
    for node in traced.graph.graph.nodes:
        if node.op == "get_attr":
            registers[node] = len(taken) + node.meta["constant"]
        elif node.op == "call_function":
            steps.append(_step(node, registers, tables))
            registers[node] = len(taken) + len(tables.constants) + len(steps) - 1
        elif node.op == "output":
            outputs = [(name, registers[out]) for name, out in zip(traced.outputs, node.args[0], strict=True)]
    return Program(tuple(name for name, _ in taken), tuple(steps), tuple(outputs))


def _step(node: fx.Node, registers: Mapping[fx.Node, int], tables: _Tables) -> Step:
    name = _name(node.target)
    if name != ITEM and name not in SYMBOLIC and name not in OPERATORS and name not in RECURRENT:
        raise formless("programs.torch", node, "may not stand in a bundle")
    options = {key: value for key, value in node.kwargs.items() if value is not None and key != "pin_memory"}
    return Step(
        tables.operator(name),
        tuple(_argument(value, registers) for value in node.args),
        {key: _argument(value, registers) for key, value in options.items()},
    )


def _name(target: Any) -> str:
    name = _ON_SIZES.get(target) or _INSTEAD.get(str(target), str(target))
    if name.startswith(_RECURRENT):
        return f"recurrent.{name.split('.')[1]}"
    return name


def _argument(value: Any, registers: Mapping[fx.Node, int]) -> Argument:
    if isinstance(value, list | tuple):
        return tuple(_atom(item, registers) for item in value)
    return _atom(value, registers)


def _atom(value: Any, registers: Mapping[fx.Node, int]) -> Atom:
    if isinstance(value, fx.Node):
        return f"{form.REGISTER}{registers[value]}"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else f"{form.NUMBER}{value}"
    if isinstance(value, torch.device):
        return f"{form.WORD}{form.DEVICE}"
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        word = str(value).removeprefix("torch.")
        if word in (*form.DTYPES, *form.LAYOUTS, *form.MEMORY_FORMATS):
            return f"{form.WORD}{word}"
    if isinstance(value, str):
        return f"{form.TEXT}{value}"
    raise CompileError(f"the model uses the value {value!r}"[:200], "use numbers and tensors of fixed shapes")


def _constant(value: Any) -> Constant:
    dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
    if dtype not in form.DTYPES:
        raise CompileError(f"the model holds a constant of {dtype}", "use tensors of float32, int64 or bool")
    array = value.detach().cpu().contiguous().numpy()
    return Constant(dtype, tuple(array.shape), array.astype(array.dtype.newbyteorder("<")).tobytes())
