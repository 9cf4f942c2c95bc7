"""A task of any size that nobody trains, and updates for it such as training gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fieldfold.codec import DEFAULT_PROFILE, encode
from fieldfold.params import Layout, TensorSpec, to_bytes
from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature
from fieldfold.task.bundle import Bundle, batch_bytes, pack
from fieldfold.task.manifest import LearningRate, Manifest, Metric, Optimizer, SectionName, SelfCheck

ROWS = 1000
TAIL = 4
"""Degrees of freedom of the deltas' t distribution: heavy-tailed as real ones are (docs/CODEC.md), and dense enough
that the default profile needs all the bits that it allows itself."""


def bundle(num_params: int) -> Bundle:
    """One weight matrix of that many parameters; the graphs are empty, since the aggregator opens none."""
    data = DataSchema((Feature("heat"), Feature("flow")), 4, ColumnTarget("wear"), normalisation="none")
    inputs, targets = input_arrays(data), target_arrays(data)
    manifest = Manifest(
        format=1,
        name=f"load-{num_params}",
        description="",
        kind="regression",
        data=data,
        layout=Layout((TensorSpec("weight", (num_params // ROWS, ROWS)),)),
        local=Layout(()),
        frozen=Layout(()),
        privacy=None,
        optimizer_state=(),
        inputs=inputs,
        targets=targets,
        outputs=(Array("output", "float32", (1,)),),
        metrics=(Metric("rmse", "lower", "root"),),
        optimizer=Optimizer("sgd"),
        learning_rate=LearningRate(0.1),
        batch_size=16,
        local_steps=1,
        proximal=0.0,
        clip_norm=0.0,
        self_check=SelfCheck((1.0,), 1.0, 0.1, 2),
        sections=(),
        producer="benchmarks.load",
    )
    parameters = np.random.default_rng(0).normal(scale=0.05, size=num_params).astype(np.float32)
    sections: dict[SectionName, bytes] = {
        "train.onnx": b"",
        "evaluate.onnx": b"",
        "predict.onnx": b"",
        "programs.torch": b"",
        "parameters": to_bytes(parameters),
        "self_check": bytes(batch_bytes((*inputs, *targets), 2)),
    }
    return Bundle.from_bytes(pack(manifest, sections))


def write_bundle(num_params: int, path: Path) -> Bundle:
    """The same, and as a file."""
    made = bundle(num_params)
    path.write_bytes(made.data)
    return made


def payloads(num_params: int, count: int, seed: int = 0, profile: str = DEFAULT_PROFILE) -> list[bytes]:
    """That many unlike deltas, encoded; the same values, each time moved by so many places."""
    values = (np.random.default_rng(seed).standard_t(TAIL, num_params) * 1e-3).astype(np.float32)
    return [encode(np.roll(values, each * (num_params // count)), profile, seed=seed + each) for each in range(count)]
