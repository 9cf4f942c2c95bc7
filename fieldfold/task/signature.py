"""What the three graphs of a bundle take and give, derived from the manifest alone.

| graph | inputs | outputs |
|---|---|---|
| train | model, optimizer, `anchor`, inputs, targets, `weights`, scalars, `noise` | next state, `loss` |
| evaluate | model, inputs, targets | `loss` and `metric.<i>`, one value an example |
| predict | model, inputs | `output`, or `output.<key>` for each of several |

The model is `parameters`, one flat vector of everything that is trained: the shared parameters, then the local ones;
`buffers` likewise; and `frozen.<name>`, each frozen tensor in its own shape. The optimizer's i-th tensor is `s.<i>`;
`anchor` holds the shared parameters that the proximal term pulls towards, and `weights` one number an example. The
next state's names begin with `next.`. A vector that would be empty is not there, and graphs may leave out what they
do not need, such as an input that the model does not read.

Flat vectors, not a tensor each: the optimizer is then a dozen operators however many tensors the model has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fieldfold.sensors.arrays import Array
from fieldfold.task.manifest import Manifest, Optimizer

PARAMETERS = "parameters"
BUFFERS = "buffers"
FROZEN = "frozen."
ANCHOR = "anchor"
WEIGHTS = "weights"
NOISE = "noise"
LOSS = "loss"
OUTPUT = "output"
NEXT = "next."
LEARNING_RATE = "learning_rate"
PROXIMAL = "proximal"
CLIP_NORM = "clip_norm"
SEED = "seed"
RESERVED = (PARAMETERS, BUFFERS, ANCHOR, WEIGHTS, NOISE, LOSS, OUTPUT, LEARNING_RATE, PROXIMAL, CLIP_NORM, SEED)
"""Names that an array of a batch cannot have; those with a dot are out of the question."""


class Port(NamedTuple):
    """One input or output of a graph.

    Attributes:
        shape: `None` within stands for the batch dimension.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


SCALARS = (
    Port(LEARNING_RATE, "float32", ()),
    Port(PROXIMAL, "float32", ()),
    Port(CLIP_NORM, "float32", ()),
    Port(SEED, "int64", ()),
)
"""What a training step is told anew each time."""


def state_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """What a step changes: parameters, buffers and the optimizer's tensors, which are zero before the first step."""
    num_buffers = manifest.layout.num_params + manifest.local.num_params - manifest.num_trained
    vectors = {PARAMETERS: (manifest.num_trained,), **({BUFFERS: (num_buffers,)} if num_buffers else {})}
    return {**vectors, **{f"s.{index}": shape for index, shape in enumerate(manifest.optimizer_state)}}


def state_ports(manifest: Manifest) -> tuple[Port, ...]:
    """The same as ports."""
    return tuple(Port(name, "float32", shape) for name, shape in state_shapes(manifest).items())


def model_ports(manifest: Manifest) -> tuple[Port, ...]:
    """The model's values, trained and frozen."""
    vectors = [port for port in state_ports(manifest) if port.name in (PARAMETERS, BUFFERS)]
    return (*vectors, *frozen_ports(manifest))


def frozen_ports(manifest: Manifest) -> tuple[Port, ...]:
    """The frozen tensors in the layout's order."""
    return tuple(Port(FROZEN + spec.name, "float32", spec.shape) for spec in manifest.frozen.tensors)


def batch_ports(arrays: Sequence[Array], rows: int | None = None) -> tuple[Port, ...]:
    """A batch's arrays, batch dimension first."""
    return tuple(Port(array.name, array.dtype, (rows, *array.shape)) for array in arrays)


def optimizer_shapes(optimizer: Optimizer, num_trained: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the optimizer's tensors.

    SGD keeps the velocity, and nothing without momentum; Adam the sums of both moments and of their weights.
    """
    if optimizer.name == "adam":
        return ((num_trained,), (num_trained,), (), ())
    return ((num_trained,),) if optimizer.momentum else ()


def train_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the train graph.

    One that clips each example's gradient takes batches of one size only: a shorter one is filled up.
    """
    state = state_ports(manifest)
    rows = manifest.batch_size if manifest.privacy else None
    batch = (*batch_ports((*manifest.inputs, *manifest.targets), rows), Port(WEIGHTS, "float32", (rows,)))
    anchor = Port(ANCHOR, "float32", (manifest.layout.num_trained,))
    noise = (Port(NOISE, "float32", (manifest.num_trained,)),) if manifest.privacy else ()
    inputs = (*state, *frozen_ports(manifest), anchor, *batch, *SCALARS, *noise)
    return inputs, (*(port._replace(name=NEXT + port.name) for port in state), Port(LOSS, "float32", ()))


def evaluate_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the evaluation graph."""
    inputs = (*model_ports(manifest), *batch_ports(manifest.inputs), *batch_ports(manifest.targets))
    columns = (LOSS, *(f"metric.{index}" for index in range(len(manifest.metrics))))
    return inputs, tuple(Port(name, "float32", (None,)) for name in columns)


def predict_ports(manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the prediction graph."""
    return (*model_ports(manifest), *batch_ports(manifest.inputs)), batch_ports(manifest.outputs)
