"""What the three graphs of a bundle take and give, derived from the manifest alone.

| graph | inputs | outputs |
|---|---|---|
| train | state, anchors, inputs, targets, scalars | next state, `loss` |
| evaluate | parameters, buffers, inputs, targets | `loss` and `metric.<i>`, one value an example |
| predict | parameters, buffers, inputs | `output` |

A parameter `w` is the input `p.w`, a buffer `m` the input `b.m`, the optimizer's i-th tensor `s.<i>`, and the anchor
of the proximal term `g.w`; the next state's names begin with `next.`. Graphs may leave out what they do not need: an
input that the model does not read, or the output of a buffer that no step changes (a frozen weight).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fieldfold.params import Layout
from fieldfold.task.manifest import Array, Manifest, Optimizer

LOSS = "loss"
OUTPUT = "output"
NEXT = "next."
LEARNING_RATE = "learning_rate"
PROXIMAL = "proximal"
CLIP_NORM = "clip_norm"
SEED = "seed"


class Port(NamedTuple):
    """One input or output of a graph.

    Attributes:
        shape: `None` within stands for the batch dimension; `None` in all for any shape behind it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


SCALARS = (
    Port(LEARNING_RATE, "float32", ()),
    Port(PROXIMAL, "float32", ()),
    Port(CLIP_NORM, "float32", ()),
    Port(SEED, "int64", ()),
)
"""What a training step is told anew each time."""


def tensor_ports(layout: Layout) -> tuple[Port, ...]:
    """The model's tensors in the layout's order: `p.<name>` for parameters, `b.<name>` for buffers."""
    return tuple(Port(f"{spec.kind[0]}.{spec.name}", "float32", spec.shape) for spec in layout.tensors)


def anchor_ports(layout: Layout) -> tuple[Port, ...]:
    """The global parameters that the proximal term pulls towards, in the layout's order."""
    return tuple(Port(f"g.{spec.name}", "float32", spec.shape) for spec in layout.tensors if spec.kind == "parameter")


def optimizer_ports(shapes: Sequence[tuple[int, ...]]) -> tuple[Port, ...]:
    """The optimizer's tensors, which are zero before the first step."""
    return tuple(Port(f"s.{index}", "float32", shape) for index, shape in enumerate(shapes))


def batch_ports(arrays: Sequence[Array]) -> tuple[Port, ...]:
    """A batch's arrays, batch dimension first."""
    return tuple(Port(array.name, array.dtype, (None, *array.shape)) for array in arrays)


def optimizer_shapes(optimizer: Optimizer, layout: Layout) -> tuple[tuple[int, ...], ...]:
    """Shapes of the optimizer's tensors.

    SGD keeps one velocity a parameter, and nothing without momentum; Adam the first moments, the second moments and
    the two bias corrections 1 - beta^t.
    """
    parameters = tuple(spec.shape for spec in layout.tensors if spec.kind == "parameter")
    if optimizer.name == "adam":
        return (*parameters, *parameters, (), ())
    return parameters if optimizer.momentum else ()


def train_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the train graph."""
    state = (*tensor_ports(manifest.layout), *optimizer_ports(manifest.optimizer_state))
    batch = (*batch_ports(manifest.inputs), *batch_ports(manifest.targets))
    inputs = (*state, *anchor_ports(manifest.layout), *batch, *SCALARS)
    outputs = (*(port._replace(name=NEXT + port.name) for port in state), Port(LOSS, "float32", ()))
    return inputs, outputs


def evaluate_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the evaluation graph."""
    inputs = (*tensor_ports(manifest.layout), *batch_ports(manifest.inputs), *batch_ports(manifest.targets))
    columns = (LOSS, *(f"metric.{index}" for index in range(len(manifest.metrics))))
    return inputs, tuple(Port(name, "float32", (None,)) for name in columns)


def predict_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and output of the prediction graph; the output has the shape that the model gives it."""
    return (*tensor_ports(manifest.layout), *batch_ports(manifest.inputs)), (Port(OUTPUT, "float32", None),)
