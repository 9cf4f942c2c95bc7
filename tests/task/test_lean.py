"""Graphs get shorter, and give the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fieldfold.task.compile.lean import lean

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
X = helper.make_tensor_value_info("x", FLOAT, ["batch", 6])
VALUES = np.random.default_rng(0).standard_normal((4, 6), np.float32)


def model_of(
    nodes: Sequence[NodeProto], constants: Mapping[str, Any], outputs: Mapping[str, Sequence[int | str]]
) -> onnx.ModelProto:
    """A graph from `x` of shape (batch, 6) to float outputs."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [X],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {"x": VALUES})
    return found


def leaned(model: onnx.ModelProto) -> list[str]:
    """The operators that are left, having compared the results."""
    expected = run(model)
    shorter = lean(model)
    onnx.checker.check_model(shorter)
    assert [entry.domain for entry in shorter.opset_import] == [""]
    for mine, theirs in zip(run(shorter), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    return [node.op_type for node in shorter.graph.node]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def test_a_sequence_that_is_taken_apart_again_is_a_split() -> None:
    nodes = [
        node("SplitToSequence", "x sizes", "pieces", axis=1),
        node("SequenceAt", "pieces one", "second"),
        node("SequenceAt", "pieces zero", "first"),
        node("Relu", "second", "a"),
        node("Relu", "first", "b"),
    ]
    constants = {"sizes": np.array([2, 4]), "zero": np.array(0), "one": np.array(1)}
    assert leaned(model_of(nodes, constants, {"a": ["batch", 4], "b": ["batch", 2]})) == ["Split", "Relu", "Relu"]


def test_a_shape_of_which_only_the_batch_is_computed_is_a_constant() -> None:
    nodes = [
        node("Shape", "x", "size", start=0, end=1),
        node("Concat", "size known", "shape", axis=0),
        node("Reshape", "x shape", "y"),
        node("Relu", "y", "a"),
    ]
    assert leaned(model_of(nodes, {"known": np.array([2, 3])}, {"a": ["batch", 2, 3]})) == ["Reshape", "Relu"]


def test_a_shape_that_takes_two_sizes_from_elsewhere_stays() -> None:
    nodes = [
        node("Shape", "x", "size"),
        node("Concat", "size one", "shape", axis=0),
        node("Reshape", "x shape", "a"),
    ]
    assert leaned(model_of(nodes, {"one": np.array([1])}, {"a": ["batch", 6, 1]}))[-1] == "Reshape"


def test_of_several_shapes_the_last_is_enough() -> None:
    nodes = [
        node("Unsqueeze", "x axis", "y"),
        node("Reshape", "y columns", "z"),
        node("Reshape", "z flat", "w"),
        node("Relu", "w", "a"),
        node("Relu", "z", "b"),
    ]
    constants = {"axis": np.array([1]), "columns": np.array([-1, 3]), "flat": np.array([-1])}
    model = model_of(nodes, constants, {"a": ["n"], "b": ["m", 3]})
    assert leaned(model).count("Unsqueeze") == 0


def test_a_power_of_one_and_a_cast_to_the_same_type_do_nothing() -> None:
    nodes = [
        node("Pow", "x one", "y"),
        node("Relu", "y", "z"),
        node("Cast", "z", "w", to=FLOAT),
        node("Neg", "w", "a"),
    ]
    assert leaned(model_of(nodes, {"one": np.float32(1)}, {"a": ["batch", 6]})) == ["Relu", "Neg"]


def test_a_sum_of_squares_is_one_operator_unless_the_squares_are_needed() -> None:
    nodes = [node("Mul", "x x", "y"), node("ReduceSum", "y axes", "a", keepdims=0)]
    constants = {"axes": np.array([1])}
    assert leaned(model_of(nodes, constants, {"a": ["batch"]})) == ["ReduceSumSquare"]
    assert "Mul" in leaned(model_of([*nodes, node("Relu", "y", "b")], constants, {"a": ["batch"], "b": ["batch", 6]}))


@pytest.mark.parametrize("epsilon", [1e-8, 1e-12])
def test_small_constants_stay(epsilon: float) -> None:
    nodes = [
        node("Sub", "x x", "zero"),
        node("Add", "zero epsilon", "y"),
        node("Div", "epsilon y", "a"),
    ]
    assert "Add" in leaned(model_of(nodes, {"epsilon": np.float32(epsilon)}, {"a": ["batch", 6]}))


def test_what_a_branch_reads_stays() -> None:
    branches = [
        helper.make_graph(
            [node(kind, "y", f"{kind}.out")], kind, [], [helper.make_tensor_value_info(f"{kind}.out", FLOAT, None)]
        )
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        node("Pow", "x one", "y"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total one", "large"),
        node("If", "large", "a", then_branch=branches[0], else_branch=branches[1]),
    ]
    assert leaned(model_of(nodes, {"one": np.float32(1)}, {"a": ["batch", 6]}))[-1] == "If"
