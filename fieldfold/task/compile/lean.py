"""Rewrites a graph into fewer operators with the same results.

ONNX Runtime folds the constants and drops what does nothing, here and not on every gateway at every start; the rules
below do what it leaves. The exporter's own optimiser is not used: it takes a small constant such as Adam's 1e-8 for
zero, and does not end on long recurrent graphs.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

_ONLY_SHAPE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_LARGEST_CONSTANT_BYTES = 1 << 16
_FATAL_ONLY = 4


def lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in the standard domain with fewer operators."""
    model = _folded(model)
    graph = _Graph(model.graph)
    for rule in _RULES:
        for node in list(model.graph.node):
            rule(graph, node)
        graph.write()
    return model


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    # this level leaves standard operators; the higher ones are for the machine at hand
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry(
        "optimization.constant_folding_max_output_size_in_bytes", str(_LARGEST_CONSTANT_BYTES)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.onnx")
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(path)
    del folded.opset_import[:]
    folded.opset_import.extend(entry for entry in model.opset_import if not entry.domain)
    return onnx.shape_inference.infer_shapes(folded)


def _read_within(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that the bodies of loops and branches read, at any depth."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from (name for inner in body.node for name in inner.input)
                yield from (value.name for value in body.output)
                yield from _read_within(body)


def _static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes; a negative one stands for any that is not fixed."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


class _Graph:
    """A graph with the look-ups that rules need; what they change is written at the end of each."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        # what a loop's body reads is as much a result as the graph's own
        self._results = {value.name for value in graph.output} | set(_read_within(graph))
        self.constants: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in graph.initializer
        }
        self.shapes = {value.name: _static_shape(value) for value in graph.value_info}
        self.types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        self._instead: dict[str, str] = {}
        self._look_up()

    def _look_up(self) -> None:
        self.maker = {name: node for node in self._graph.node for name in node.output}
        self.uses = Counter(name for node in self._graph.node for name in node.input)
        self.uses.update(self._results)

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a new constant."""
        name = f"lean.{len(self.constants)}"
        self.constants[name] = values
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def add(self, op_type: str, *inputs: str, before: NodeProto) -> str:
        """The name of the result of a new node."""
        node = helper.make_node(op_type, inputs, [f"lean.node.{len(self._graph.node)}"])
        place = next(place for place, other in enumerate(self._graph.node) if other.output == before.output)
        self._graph.node.insert(place, node)
        return str(node.output[0])

    def replace(self, old: str, new: str) -> None:
        """Lets another value stand for this one, unless it is a result of the whole graph."""
        if old not in self._results:
            self._instead[old] = new

    def write(self) -> None:
        """Puts what stands for a value in its place, and drops what nobody reads any more."""
        kept: list[NodeProto] = []
        read = set(self._results)
        for node in reversed(self._graph.node):
            if read.intersection(node.output):
                node.input[:] = [self._now(name) for name in node.input]
                read.update(node.input)
                kept.append(node)
        initializers = [item for item in self._graph.initializer if item.name in read]
        for field, items in (("node", kept[::-1]), ("initializer", initializers)):
            self._graph.ClearField(field)
            getattr(self._graph, field).extend(items)
        self._instead.clear()
        self._look_up()

    def _now(self, name: str) -> str:
        while name in self._instead:
            name = self._instead[name]
        return name


def _split_at_once(graph: _Graph, node: NodeProto) -> None:
    """A sequence of pieces, each of which is taken out of it again, is a Split."""
    if node.op_type != "SplitToSequence" or len(node.input) < 2 or node.input[1] not in graph.constants:
        return
    takers = [taker for taker in graph.maker.values() if node.output[0] in taker.input]
    sizes = graph.constants[node.input[1]]
    if sizes.ndim != 1 or any(t.op_type != "SequenceAt" or t.input[1] not in graph.constants for t in takers):
        return
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    pieces = [f"{node.output[0]}.{index}" for index in range(len(sizes))]
    node.CopyFrom(helper.make_node("Split", node.input, pieces, axis=axis))
    for taker in takers:
        graph.replace(taker.output[0], pieces[int(graph.constants[taker.input[1]])])


def _batch_from_the_rest(graph: _Graph, node: NodeProto) -> None:
    """A shape of known sizes and one that is computed: Reshape finds that one by itself."""
    shape = graph.maker.get(node.input[1]) if node.op_type == "Reshape" else None
    if shape is None or shape.op_type != "Concat":
        return
    parts = [graph.constants.get(name) for name in shape.input]
    sizes = [np.array([-1]) if part is None else part for part in parts]
    known = [size for part in parts if part is not None for size in part.tolist()]
    computed = [name for name, part in zip(shape.input, parts, strict=True) if part is None]
    if len(computed) == 1 and graph.shapes.get(computed[0]) == (1,) and min(known, default=1) > 0:
        node.input[1] = graph.constant(np.concatenate(sizes).astype(np.int64))


def _reshape_once(graph: _Graph, node: NodeProto) -> None:
    """What a value's shape was before a Reshape to known sizes does not matter."""
    if node.op_type != "Reshape" or node.input[1] not in graph.constants:
        return
    if not graph.constants[node.input[1]].all():
        return  # a zero copies a size of the shape before
    before = graph.maker.get(node.input[0])
    while before is not None and before.op_type in _ONLY_SHAPE:
        node.input[0] = before.input[0]
        before = graph.maker.get(node.input[0])


def _same_type(graph: _Graph, node: NodeProto) -> None:
    """What is copied into a buffer is cast to the type that it has."""
    wanted = [attribute.i for attribute in node.attribute if attribute.name == "to"]
    if node.op_type == "Cast" and [graph.types.get(node.input[0])] == wanted:
        graph.replace(node.output[0], node.input[0])


def _first_power(graph: _Graph, node: NodeProto) -> None:
    """The derivative of a square has one."""
    if node.op_type == "Pow" and node.input[1] in graph.constants and (graph.constants[node.input[1]] == 1).all():
        graph.replace(node.output[0], node.input[0])


def _square_sum(graph: _Graph, node: NodeProto) -> None:
    """A sum of squares needs no squares in memory."""
    square = graph.maker.get(node.input[0]) if node.op_type == "ReduceSum" else None
    if square is None or square.op_type != "Mul" or graph.uses[square.output[0]] > 1:
        return
    if square.input[0] == square.input[1]:
        node.op_type = "ReduceSumSquare"
        node.input[0] = square.input[0]


def _statistics_apart(graph: _Graph, node: NodeProto) -> None:
    """Gives the statistics of a BatchNorm in training memory that is written anew every step and read by nobody else.

    ONNX Runtime writes into it. It makes one value of two that are computed equally, so each is multiplied by a
    number of its own.
    """
    if node.op_type != "BatchNormalization" or len(node.output) == 1:
        return
    for place in (3, 4):
        number = graph.constant(np.array(2 + len(graph.constants), np.float32))
        node.input[place] = graph.add("Mul", node.input[place], number, before=node)


_RULES = (
    _split_at_once,
    _batch_from_the_rest,
    _reshape_once,
    _same_type,
    _first_power,
    _square_sum,
    _statistics_apart,
)
