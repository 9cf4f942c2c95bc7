"""The recurrent operators of `recurrent.py`: their shapes, their rule under vmap, and their form as an ONNX Scan.

They have no kernels: they stand in a graph between tracing and export, and never in a bundle. Time is the first
dimension, examples the second; `backwards` runs from the last step to the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import ir
from torch import Tensor
from torch.onnx._internal.exporter._torchlib.ops.hop import call_op

_NAMES = itertools.count()
_OPSET = 21


class _Body:
    """The graph of one step, written operator by operator.

    Attributes:
        inputs: states, then what is read of each step.
    """

    def __init__(self, starts: Sequence[ir.Value], reads: Sequence[ir.Value]) -> None:
        self._prefix = f"step{next(_NAMES)}"
        self._nodes: list[ir.Node] = []
        self._starts, self._reads = starts, reads
        self.inputs = [ir.Value(name=f"{self._prefix}.in{n}") for n in range(len(starts) + len(reads))]
        for value, outer in zip(self.inputs, (*starts, *reads), strict=True):
            _shape(value, _sizes(outer)[-1])

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Adds a node with one output."""
        return self._add(op_type, inputs, attributes, 1)[0]

    def split(self, value: ir.Value, *sizes: int) -> Sequence[ir.Value]:
        """Pieces along the last dimension."""
        return self._add("Split", [value, self("Constant", value_ints=list(sizes))], {"axis": 1}, len(sizes))

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, Any], outputs: int
    ) -> Sequence[ir.Value]:
        attrs = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", op_type, inputs, attrs, num_outputs=outputs, version=_OPSET)
        for n, value in enumerate(node.outputs):
            value.name = f"{self._prefix}.{len(self._nodes)}.{n}"
        self._nodes.append(node)
        return node.outputs

    def scan(self, outputs: Sequence[tuple[ir.Value, int]], backwards: bool) -> tuple[ir.Value, ...]:  # noqa: FBT001
        """The Scan over all steps; `outputs` and their widths are next states, then what is kept of each step."""
        # ONNX Runtime wants to know the shapes of a step's results, and does not find them out by itself
        for value, width in outputs:
            _shape(value, width)
        results = [value for value, _ in outputs]
        graph = ir.Graph(self.inputs, results, nodes=self._nodes, name=self._prefix, opset_imports={"": _OPSET})
        direction = int(backwards)
        # a reader of the bundle must see how often the steps run: the last of the reads is told its own length
        steps, _, width = _sizes(self._reads[-1])
        (shape,) = call_op("Constant", value=ir.tensor(np.array([steps, -1, width], np.int64)))
        (last,) = call_op("Reshape", self._reads[-1], shape)
        found = call_op(
            "Scan",
            *self._starts,
            *self._reads[:-1],
            last,
            _num_outputs=len(outputs),
            body=graph,
            num_scan_inputs=len(self._reads),
            scan_input_directions=[direction] * len(self._reads),
            scan_output_directions=[direction] * (len(outputs) - len(self._starts)),
        )
        return tuple(found)


def _sizes(value: ir.Value) -> Sequence[Any]:
    return list(value.shape or ())


def _shape(value: ir.Value, width: int) -> None:
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, width])


def _lstm(from_input: Any, hidden: Any, cell: Any, weight: Any, backwards: bool) -> Any:  # noqa: FBT001
    step = _Body([hidden, cell], [from_input])
    h, c, given = step.inputs
    size = hidden.shape[-1]
    gates, candidate = step.split(step("Gemm", h, weight, given), 3 * size, size)
    i, f, o = step.split(step("Sigmoid", gates), size, size, size)
    candidate = step("Tanh", candidate)
    kept = step("Mul", f, c)
    following = step("Add", kept, step("Mul", i, candidate))
    squashed = step("Tanh", following)
    states = [(step("Mul", o, squashed), size), (following, size)]
    return step.scan([*states, *((value, size) for value in (i, f, o, candidate, kept, squashed))], backwards)


def _lstm_backward(  # noqa: PLR0913, PLR0917 -- the operator's arguments
    of_earlier: Any,
    of_hidden: Any,
    of_cell: Any,
    through: Any,
    of_gates: Any,
    f: Any,
    weight: Any,
    backwards: bool,  # noqa: FBT001
) -> Any:
    step = _Body([of_hidden, of_cell], [of_earlier, through, of_gates, f])
    hidden, dc, earlier, slope, factors, kept = step.inputs
    size = of_hidden.shape[-1]
    cell = step("Add", dc, step("Mul", hidden, slope))
    gates = step("Mul", step("Concat", cell, cell, hidden, cell, axis=1), factors)
    states = [(step("Gemm", gates, weight, earlier), size), (step("Mul", cell, kept), size)]
    return step.scan([*states, (gates, 4 * size)], not backwards)


def _gru(from_input: Any, hidden: Any, weight: Any, bias: Any, backwards: bool) -> Any:  # noqa: FBT001
    step = _Body([hidden], [from_input])
    h, given = step.inputs
    size = hidden.shape[-1]
    gates, recalled = step.split(step("Gemm", h, weight, bias), 2 * size, size)
    given_gates, given_candidate = step.split(given, 2 * size, size)
    sigmoids = step("Sigmoid", step("Add", given_gates, gates))
    r, z = step.split(sigmoids, size, size)
    candidate = step("Tanh", step("Add", given_candidate, step("Mul", r, recalled)))
    moved = step("Sub", h, candidate)
    state = step("Add", candidate, step("Mul", z, moved))
    kept = [(sigmoids, 2 * size), (candidate, size), (recalled, size), (moved, size)]
    return step.scan([(state, size), *kept], backwards)


def _gru_backward(of_y: Any, of_last: Any, of_gates: Any, z: Any, weight: Any, backwards: bool) -> Any:  # noqa: FBT001, PLR0913, PLR0917
    step = _Body([of_last], [of_y, of_gates, z])
    dh, dy, factors, kept = step.inputs
    size = of_last.shape[-1]
    hidden = step("Add", dh, dy)
    gates = step("Mul", step("Concat", hidden, hidden, hidden, axis=1), factors)
    state = step("Gemm", gates, weight, step("Mul", hidden, kept))
    return step.scan([(state, size), (gates, 3 * size), (hidden, size)], not backwards)


def _plain(from_input: Any, hidden: Any, weight: Any, activation: str, backwards: bool) -> Any:  # noqa: FBT001
    step = _Body([hidden], [from_input])
    h, given = step.inputs
    size = hidden.shape[-1]
    following = step(activation, step("Gemm", h, weight, given))
    return step.scan([(following, size), (step("Identity", following), size)], backwards)


def _plain_backward(of_y: Any, of_last: Any, slope: Any, weight: Any, backwards: bool) -> Any:  # noqa: FBT001
    step = _Body([of_last], [of_y, slope])
    dh, dy, factors = step.inputs
    size = of_last.shape[-1]
    inner = step("Mul", step("Add", dh, dy), factors)
    return step.scan([(step("MatMul", inner, weight), size), (inner, size)], not backwards)


# -- what torch must know of them ----------------------------------------------------------------------------------

_LIBRARY = torch.library.Library("fieldfold_recurrent", "DEF")  # type: ignore[no-untyped-call]
_SHARED = -1  # no dimension of examples

TRANSLATIONS: dict[Any, Callable[..., Any]] = {}
"""Operator -> the function that writes it as ONNX."""


def _operator(
    schema: str,
    written: Callable[..., Any],
    shapes: Callable[..., Sequence[Sequence[int]]],
    takes: Sequence[int],
    gives: Sequence[int],
) -> Any:
    """Defines an operator.

    Args:
        schema: torch's.
        written: the function that writes it as ONNX.
        shapes: from the arguments, the shape of every result.
        takes: for every argument which dimension counts examples.
        gives: the same for every result.
    """
    name = schema.split("(", 1)[0]
    qualified = f"fieldfold_recurrent::{name}"
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
    operator = getattr(torch.ops.fieldfold_recurrent, name)

    def fake(*args: Any) -> tuple[Tensor, ...]:
        return tuple(args[0].new_empty(shape) for shape in shapes(*args))

    def vmapped(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Further examples join the dimension of examples."""
        merged = [
            arg if place == _SHARED else _join(arg, dim, place, info.batch_size)
            for arg, dim, place in zip(args, in_dims, takes, strict=True)
        ]
        results = operator(*merged)
        return (
            tuple(
                result.unflatten(place, (info.batch_size, -1)) for result, place in zip(results, gives, strict=True)
            ),
            tuple(gives),
        )

    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    torch.library.register_vmap(qualified, vmapped, lib=_LIBRARY)
    TRANSLATIONS[operator.default] = written
    return operator


def _join(value: Tensor, dim: int | None, place: int, size: int) -> Tensor:
    if dim is None:
        value = value.unsqueeze(place).expand(*value.shape[:place], size, *value.shape[place:])
    else:
        value = value.movedim(dim, place)
    return value.flatten(place, place + 1)


def _wide(x: Tensor, width: int) -> list[int]:
    return [*x.shape[:-1], width]


lstm = _operator(
    "lstm(Tensor from_input, Tensor hidden, Tensor cell, Tensor weight, bool backwards)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _lstm,
    lambda x, h, c, *_: [h.shape, c.shape, *[_wide(x, h.shape[-1])] * 6],
    (1, 0, 0, _SHARED, _SHARED),
    (0, 0, 1, 1, 1, 1, 1, 1),
)
"""Steps `(T, N, 4 H)`, states `(N, H)`, weight `(H, 4 H)` -> last states; of each step i, f, o, g, f c, tanh c."""

lstm_backward = _operator(
    "lstm_backward(Tensor of_earlier, Tensor of_hidden, Tensor of_cell, Tensor through, Tensor of_gates, Tensor f,"
    " Tensor weight, bool backwards) -> (Tensor, Tensor, Tensor)",
    _lstm_backward,
    lambda _, h, c, __, gates, *___: [h.shape, c.shape, gates.shape],
    (1, 0, 0, 1, 1, 1, _SHARED, _SHARED),
    (0, 0, 1),
)
"""Gradients of the first hidden state, the first cell, and the gates' inputs `(T, N, 4 H)`.

`of_hidden` is the gradient of the last output too, and `of_earlier` at each step that of the output before it.
"""

gru = _operator(
    "gru(Tensor from_input, Tensor hidden, Tensor weight, Tensor bias, bool backwards)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _gru,
    lambda x, h, *_: [h.shape, _wide(x, 2 * h.shape[-1]), *[_wide(x, h.shape[-1])] * 3],
    (1, 0, _SHARED, _SHARED, _SHARED),
    (0, 1, 1, 1, 1),
)
"""Steps `(T, N, 3 H)`, state `(N, H)` -> last state, sigmoids, candidate, R h + b of it, h - candidate."""

gru_backward = _operator(
    "gru_backward(Tensor of_y, Tensor of_last, Tensor of_gates, Tensor z, Tensor weight, bool backwards)"
    " -> (Tensor, Tensor, Tensor)",
    _gru_backward,
    lambda of_y, h, gates, *_: [h.shape, gates.shape, of_y.shape],
    (1, 0, 1, 1, _SHARED, _SHARED),
    (0, 1, 1),
)
"""Gradients of the first state, of R h + b `(T, N, 3 H)`, and of the states `(T, N, H)`."""

plain = _operator(
    "plain(Tensor from_input, Tensor hidden, Tensor weight, str activation, bool backwards) -> (Tensor, Tensor)",
    _plain,
    lambda x, h, *_: [h.shape, x.shape],
    (1, 0, _SHARED, _SHARED, _SHARED),
    (0, 1),
)
"""Steps `(T, N, H)`, state `(N, H)` -> last state and all states."""

plain_backward = _operator(
    "plain_backward(Tensor of_y, Tensor of_last, Tensor slope, Tensor weight, bool backwards) -> (Tensor, Tensor)",
    _plain_backward,
    lambda y, h, *_: [h.shape, y.shape],
    (1, 0, 1, _SHARED, _SHARED),
    (0, 1),
)
"""Gradients of the first state and of the steps."""
