"""The manifest at the head of every bundle: all that a node, an aggregator or a person must know of a task."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fieldfold.params import Layout
from fieldfold.sensors.arrays import Array
from fieldfold.sensors.schema import DataSchema, Kind

FORMAT = 1
MAX_STATE_TENSORS = 40_000
MAX_BATCH = 65_536

TaskName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._\-]{0,63}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
SectionName = Literal["train.onnx", "evaluate.onnx", "predict.onnx", "programs.torch", "parameters", "self_check"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of the bundle, zstd-compressed, in the order of the manifest."""

    name: SectionName
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    compressed_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The local optimizer, compiled into the training graph: torch.optim's SGD, Adam or AdamW.

    Attributes:
        name: `sgd` or `adam`.
        nesterov: SGD steps along the gradient plus `momentum` times the velocity.
        decoupled: weight decay shrinks the parameters by learning rate x weight_decay each step (AdamW) instead of
            adding weight_decay x parameters to the gradient.
        decay_vectors: whether tensors of one dimension or none, such as biases and norm scales, decay too.

    Raises:
        ValueError: for nesterov without momentum.
    """

    name: Literal["sgd", "adam"]
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    beta1: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, msgspec.Meta(gt=0)] = 1e-8
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    decoupled: bool = False
    decay_vectors: bool = True

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum")


class PerExampleClipping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DP-SGD (Abadi et al., 2016): no example moves the model by more than another.

    The gradient of each example, over all trained parameters, is scaled down to the Euclidean norm `norm`; to their
    sum comes normal noise with a standard deviation of `noise_multiplier` x `norm`; the divisor is the task's batch
    size, whatever the number of rows.
    """

    norm: Annotated[float, msgspec.Meta(gt=0)]
    noise_multiplier: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class LearningRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Learning rate as a function of the model version that training starts from.

    `initial` falls geometrically by half every `half_life` versions, never below `floor`.
    """

    initial: Annotated[float, msgspec.Meta(gt=0)]
    half_life: Annotated[float, msgspec.Meta(gt=0)] | None = None
    floor: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def at(self, version: int) -> float:
        """The rate for a training run based on `version`."""
        if self.half_life is None:
            return self.initial
        return max(self.floor, self.initial * float(0.5 ** (version / self.half_life)))


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a column of the evaluation graph becomes a number for people.

    The graph gives one value an example; `finish` of their mean, times `scale`, is the metric.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_ .%\-]{1,32}\Z")]
    better: Literal["lower", "higher"]
    finish: Literal["mean", "root"] = "mean"
    scale: float = 1.0
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""

    def value(self, mean: float) -> float:
        """The metric from the mean of the per-example values."""
        return (max(mean, 0.0) ** 0.5 if self.finish == "root" else mean) * self.scale


class SelfCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node repeats before its first step: the section `self_check` holds the batch.

    Attributes:
        losses: training loss of each of the steps, from the first parameters, at `learning_rate`.
        evaluation_loss: loss of the evaluation graph afterwards.
        tolerance: largest relative difference allowed.
    """

    losses: Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=100)]
    evaluation_loss: float
    learning_rate: float
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)]
    tolerance: float = 1e-3


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See docs/WIRE_FORMAT.md, "Task bundle".

    Attributes:
        layout: the shared tensors, in the order of the travelling vector.
        local: tensors that are trained and never leave the gateway, in the order of their own vector.
        frozen: tensors that no step changes: they lie in the bundle and do not travel again.
        optimizer_state: shapes of the optimizer's tensors, zero at the start.
        kind: what is learned, in a word; follows from `data`.
        inputs: arrays of one example as the graphs take them, in the order of the model's arguments; they too follow
            from `data`.
        targets: likewise, in the order in which the loss takes them after the model's output.
        outputs: what the prediction graph gives: `output`, or where the model gives several tensors `output.<key>`,
            the key of a dict or the number from 0 in a tuple.
        metrics: columns of the evaluation graph after the loss; the first is the one that decides.
        local_steps: optimizer steps an update.
        proximal: strength mu of FedProx's mu/2 ||w - w_global||^2 (0 is off).
        clip_norm: gradients are clipped to this global norm (0 is off).
        privacy: clipping of each example's gradient, and noise; None is off.
    """

    format: Literal[1]
    name: TaskName
    description: Annotated[str, msgspec.Meta(max_length=2000)]
    kind: Kind
    data: DataSchema
    layout: Layout
    local: Layout
    frozen: Layout
    optimizer_state: Annotated[tuple[tuple[int, ...], ...], msgspec.Meta(max_length=MAX_STATE_TENSORS)]
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    outputs: tuple[Array, ...]
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1, max_length=16)]
    optimizer: Optimizer
    learning_rate: LearningRate
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)]
    local_steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    proximal: Annotated[float, msgspec.Meta(ge=0)]
    clip_norm: Annotated[float, msgspec.Meta(ge=0)]
    privacy: PerExampleClipping | None
    self_check: SelfCheck
    sections: tuple[Section, ...]
    producer: Annotated[str, msgspec.Meta(max_length=200)]

    @property
    def layouts(self) -> tuple[Layout, Layout, Layout]:
        """Shared, local, frozen: the order of the section `parameters`."""
        return self.layout, self.local, self.frozen

    @property
    def num_trained(self) -> int:
        """Elements that the optimizer changes, shared and local."""
        return self.layout.num_trained + self.local.num_trained
