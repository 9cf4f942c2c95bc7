"""Traces a function of tensors and writes it as a plain ONNX graph without a trace of where it was made."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from fieldfold.errors import CompileError
from fieldfold.task.compile.decompositions import decomposition_table
from fieldfold.task.compile.forms import ExportableForms
from fieldfold.task.compile.lean import lean
from fieldfold.task.compile.onnx_operators import onnx_rules, translations
from fieldfold.task.compile.origins import OriginTracker, tracked
from fieldfold.task.compile.refusals import untraceable, untranslatable
from fieldfold.task.manifest import MAX_BATCH

OPSET = 21
BATCH_DIM = "batch"
IR_VERSION = 10  # the oldest that holds opset 21: older installations of ONNX Runtime read it too


@dataclass(frozen=True)
class Example:
    """A graph input, and a tensor of the kind it takes."""

    name: str
    tensor: Tensor
    batched: bool


def export_graph(
    what: str, function: Callable[..., tuple[Tensor, ...]], examples: Sequence[Example], output_names: Sequence[str]
) -> bytes:
    """The ONNX bytes of `function`, in which only the first dimension of batched inputs may vary.

    Raises:
        CompileError: naming `what` when the function cannot be traced or an operator has no ONNX form.
    """
    rules = {**decomposition_table(), **onnx_rules()}
    with quiet_exporter():
        graph = trace(what, function, examples, rules)
        with untranslatable(what, graph):
            return _strip(lean(_to_onnx(graph, examples, output_names)))


def trace(
    what: str,
    function: Callable[..., tuple[Tensor, ...]],
    examples: Sequence[Example],
    decompositions: Mapping[Any, Callable[..., Any]],
) -> torch.fx.GraphModule:
    """The operators that `function` is made of, backward pass included; what `decompositions` has is broken down.

    Raises:
        CompileError: naming the graph `what` and the author's line when the function cannot be traced.
    """
    # torch.export cannot see through autograd.grad, make_fx can: it records the backward pass as operators
    fake_mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = []
    for example in examples:
        sizes = [DimDynamic.STATIC] * example.tensor.dim()
        if example.batched:
            sizes[0] = DimDynamic.DUCK
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(fake_mode.from_tensor(example.tensor, symbolic_context=context))
    tracker = OriginTracker()
    tracer = make_fx(
        tracked(function, tracker),
        tracing_mode="symbolic",
        decomposition_table=decompositions,
        _allow_non_fake_inputs=True,
    )
    with fake_mode, ExportableForms(), untraceable(what, tracker):
        return tracer(*fakes)


def _to_onnx(
    graph: torch.fx.GraphModule, examples: Sequence[Example], output_names: Sequence[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim(BATCH_DIM, min=2, max=MAX_BATCH)
    exported = torch.export.export(
        graph,
        tuple(example.tensor for example in examples),
        dynamic_shapes=tuple({0: batch} if example.batched else None for example in examples),
    )
    # unoptimised: see lean.py
    program = torch.onnx.export(
        exported,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=OPSET,
        custom_translation_table=translations(),
        input_names=[example.name for example in examples],
        output_names=list(output_names),
    )
    if program is None:
        raise CompileError("torch.onnx gave no program")
    return program.model_proto


def _strip(model: onnx.ModelProto) -> bytes:
    """Removes names, comments and source positions that say when and where a graph was made."""
    model.ir_version = IR_VERSION
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version", "metadata_props"):
        model.ClearField(field)
    graph = model.graph
    graph.name = "graph"
    for field in ("doc_string", "metadata_props", "value_info"):
        graph.ClearField(field)
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        item.ClearField("metadata_props")
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = BATCH_DIM  # the only one; torch numbers its symbols as it pleases
    for node in graph.node:
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter warns of what is not installed and of its own internals: nothing an author can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
