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

from fieldfold.errors import CompileError, FieldfoldError
from fieldfold.task.compile.decompositions import decomposition_table
from fieldfold.task.compile.lean import lean
from fieldfold.task.compile.randomness import UnseededError
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
    with exporting(what):
        program = _to_onnx(trace(function, examples, decomposition_table()), examples, output_names)
        return _strip(lean(program))


@contextlib.contextmanager
def exporting(what: str) -> Iterator[None]:
    """Quiets the exporter and turns whatever it raises into CompileError.

    Raises:
        CompileError: naming `what`.
    """
    try:
        with _quiet_exporter():
            yield
    except FieldfoldError:
        raise
    except UnseededError as error:
        raise unseeded(error) from error
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(
            f"the {what} graph cannot be made: {type(error).__name__}: {first_line[:300]}",
            "the forward pass, the loss and the metrics must be tensor operations of fixed shapes behind the batch",
        ) from error


def unseeded(error: UnseededError) -> CompileError:
    """The error for a random function that the compiler does not know."""
    return CompileError(f"the model calls {error}, which cannot be seeded", "use dropout, rand_like or randn_like")


def trace(
    function: Callable[..., tuple[Tensor, ...]],
    examples: Sequence[Example],
    decompositions: Mapping[Any, Callable[..., Any]],
) -> torch.fx.GraphModule:
    """The operators that `function` is made of, backward pass included; what `decompositions` has is broken down."""
    # torch.export cannot see through autograd.grad, make_fx can: it records the backward pass as operators
    fake_mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = []
    for example in examples:
        sizes = [DimDynamic.STATIC] * example.tensor.dim()
        if example.batched:
            sizes[0] = DimDynamic.DUCK
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(fake_mode.from_tensor(example.tensor, symbolic_context=context))
    tracer = make_fx(
        function,
        tracing_mode="symbolic",
        decomposition_table=decompositions,
        _allow_non_fake_inputs=True,
    )
    with fake_mode, torch.backends.mkldnn.flags(enabled=False):  # else nn.LSTM becomes an opaque mkldnn operator
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
def _quiet_exporter() -> Iterator[None]:
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
