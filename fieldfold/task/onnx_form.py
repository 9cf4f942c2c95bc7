"""What a bundle's ONNX graph may consist of, checked before ONNX Runtime sees it.

ONNX Runtime would follow an initializer to a file on this machine, knows operators of other domains, and runs a loop
for as long as it is told. A graph here has the standard operators only, holds all of its data, and says how often its
loops run. Whatever part of an ONNX file is not listed here is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fieldfold.errors import BundleError
from fieldfold.task.protobuf import MalformedError, fields, packed_varints

MAX_NODES = 500_000
MAX_NODE_RUNS = 50_000_000
"""Of one call, loops multiplied out; a training step of a recurrent network runs some ten thousand."""
MAX_DEPTH = 4
"""Of graphs within graphs."""

# field numbers of onnx.proto3; those named are read, the others are harmless
_MODEL = {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: "opset_import", 14: ""}
_OPSET = {1: "domain", 2: ""}
_GRAPH = {1: "node", 2: "", 5: "initializer", 10: "", 11: "input", 12: "", 13: "", 16: ""}
_NODE = {1: "input", 2: "output", 3: "", 4: "op_type", 5: "attribute", 6: "", 7: "domain", 9: ""}
_ATTRIBUTE = {1: "name", 2: "", 3: "", 4: "", 5: "t", 6: "g", 7: "", 8: "", 9: "", 13: "", 20: ""}
_TENSOR = {1: "dims", 2: "data_type", 4: "", 5: "", 7: "int64_data", 8: "name", 9: "raw_data", 10: "", 11: "", 12: ""}
_VALUE = {1: "name", 2: "", 3: "", 4: ""}
_STANDARD = ("", "ai.onnx")
_INT64 = 7
_FIRST, _STEPS = "first of ", "steps of "  # no name in a graph begins so and ends as another
_AGAIN = "build the bundle again with `fieldfold task build`"

_Fields = dict[str, list[int | memoryview]]


class _Size(NamedTuple):
    """Operators in a graph, and how often they run in one call of it."""

    nodes: int
    runs: int


def check_form(name: str, content: bytes) -> None:
    """Refuses a graph that reaches beyond itself or whose work has no bound.

    Raises:
        BundleError: saying what is wrong with the graph `name`.
    """
    try:
        _model(content)
    except MalformedError as error:
        raise BundleError(f"the bundle's {name} is not a graph that may be run: {error}", _AGAIN) from error


def _model(content: bytes) -> None:
    model = _read("model", content, _MODEL)
    for opset in model["opset_import"]:
        _check_domain(_read("operator set", opset, _OPSET)["domain"])
    if len(model["graph"]) != 1:
        raise MalformedError("there is no graph in it")
    size = _graph(model["graph"][0], {}, MAX_DEPTH)
    if size.nodes > MAX_NODES or size.runs > MAX_NODE_RUNS:
        raise MalformedError(f"it has {size.nodes} operators, which run {size.runs} times a call")


def _graph(content: int | memoryview, outer: Mapping[str, int], depth: int) -> _Size:
    """`outer` holds the whole numbers that constants of the graphs around it stand for."""
    if not depth:
        raise MalformedError("its graphs lie too deep in each other")
    graph = _read("graph", content, _GRAPH)
    nodes = [_read("operator", node, _NODE) for node in graph["node"]]
    numbers = dict(outer)
    for initializer in graph["initializer"]:
        tensor = _read("tensor", initializer, _TENSOR)
        numbers[_name(tensor["name"])] = _whole_number(tensor)
        numbers[_FIRST + _name(tensor["name"])] = _first_number(tensor)
    for given in graph["input"]:  # what is given may differ from what the graph itself holds
        for what in ("", _FIRST, _STEPS):
            numbers.pop(what + _name(_read("value", given, _VALUE)["name"]), None)
    total, runs = len(nodes), len(nodes)
    for node in nodes:
        inner = _node(node, numbers, depth)
        total, runs = total + inner.nodes, runs + inner.runs
    return _Size(total, runs)


def _node(node: _Fields, numbers: dict[str, int], depth: int) -> _Size:
    """What lies in the operator; a constant is added to `numbers`."""
    _check_domain(node["domain"])
    attributes = [_read("attribute", attribute, _ATTRIBUTE) for attribute in node["attribute"]]
    tensors = [_read("tensor", tensor, _TENSOR) for attribute in attributes for tensor in attribute["t"]]
    operator = _name(node["op_type"])
    for output in node["output"]:
        for what in ("", _FIRST, _STEPS):
            numbers.pop(what + _name([output]), None)
    if operator == "Constant" and tensors:
        numbers[_name(node["output"])] = _whole_number(tensors[0])
    if operator == "Reshape" and len(node["input"]) == 2:
        numbers[_STEPS + _name(node["output"])] = numbers.get(_FIRST + _name(node["input"][1:]), -1)
    sizes = [_graph(graph, numbers, depth - 1) for attribute in attributes for graph in attribute["g"]]
    trips = 1
    if sizes and operator == "Loop":
        trips = numbers.get(_name(node["input"]), -1)
        if trips < 0:
            raise MalformedError("it has a loop of which nobody knows how often it runs")
    elif sizes and operator == "Scan":
        trips = _scan_trips(node, attributes, numbers)
    elif sizes and operator != "If":
        raise MalformedError(f"it holds a graph in an operator {operator[:40]}")
    return _Size(sum(size.nodes for size in sizes), trips * sum(size.runs for size in sizes))


def _scan_trips(node: _Fields, attributes: list[_Fields], numbers: Mapping[str, int]) -> int:
    """A Scan runs once for each row of what it reads, whose last is reshaped to so many just before."""
    if any(_name(attribute["name"]) == "scan_input_axes" for attribute in attributes):
        raise MalformedError("it has a scan along another dimension than the first")
    trips = numbers.get(_STEPS + _name(node["input"][-1:]), -1)
    if trips < 1:
        raise MalformedError("it has a scan of which nobody knows how often it runs")
    return trips


def _first_number(tensor: _Fields) -> int:
    """The first element of an int64 tensor of one dimension; -1 for all others, and where it is not positive."""
    counts = [size for dims in tensor["dims"] for size in ([dims] if isinstance(dims, int) else packed_varints(dims))]
    if tensor["data_type"] != [_INT64] or len(counts) != 1:
        return -1
    return _leading(tensor)


def _whole_number(tensor: _Fields) -> int:
    """The value of an int64 tensor of one element; -1 for all others."""
    counts = [size for dims in tensor["dims"] for size in ([dims] if isinstance(dims, int) else packed_varints(dims))]
    if tensor["data_type"] != [_INT64] or any(count != 1 for count in counts):
        return -1
    return _leading(tensor)


def _leading(tensor: _Fields) -> int:
    for raw in tensor["raw_data"]:
        return int.from_bytes(_bytes(raw)[:8], "little", signed=True)
    for values in tensor["int64_data"]:
        first = values if isinstance(values, int) else packed_varints(values)[0]
        return first if first < 1 << 63 else -1
    return -1


def _check_domain(domains: list[int | memoryview]) -> None:
    for domain in domains:
        text = bytes(_bytes(domain)).decode("utf-8", "replace")
        if text not in _STANDARD:
            raise MalformedError(f"it uses the operator domain {text[:60]!r}")


def _read(what: str, content: int | bytes | memoryview, known: Mapping[int, str]) -> _Fields:
    """The fields that `known` names, each as often as it is there."""
    found: _Fields = {name: [] for name in known.values()}
    for number, value in fields(memoryview(_bytes(content))):
        if number not in known:
            raise MalformedError(f"a part of it ({what}) has the field {number}, such as data in other files")
        found[known[number]].append(value)
    return found


def _bytes(value: int | bytes | memoryview) -> bytes | memoryview:
    if isinstance(value, int):
        raise MalformedError("a number stands where a part should be")
    return value


def _name(texts: list[int | memoryview]) -> str:
    """The first text; empty where there is none."""
    return bytes(_bytes(texts[0])).decode("utf-8", "replace") if texts else ""
