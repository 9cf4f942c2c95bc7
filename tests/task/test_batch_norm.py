"""BatchNorm in training is one operator, which writes its statistics into the memory of two of its inputs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, accuracy, cross_entropy, features, sgd
from fieldfold.task.bundle import Bundle
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.onnx_runtime import OnnxRuntime
from tests.task.built import built

CHANNELS = 8
NORMS = 7


class Alike(nn.Module):
    """All that could make two BatchNorms one: shapes, inputs, constants, a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv1d(3, CHANNELS, 3, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm1d(CHANNELS) for _ in range(2))
        self.plain = nn.ModuleList(nn.BatchNorm1d(CHANNELS, affine=False, eps=eps) for eps in (1e-5, 1e-3))
        self.passing = nn.BatchNorm1d(CHANNELS, affine=False, track_running_stats=False)
        self.last = nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x.transpose(1, 2))
        joined = self.norms[0](x) + self.norms[1](x) + self.plain[0](x).sigmoid() + self.plain[1](x)
        joined = torch.tanh(self.norms[0](self.plain[0](torch.tanh(joined))))
        if self.training:
            joined = self.passing(joined).tanh()
        result: Tensor = self.last(joined.mean(2))
        return result


def alike() -> Task:
    data = DataSchema(features("x", "y", "z"), 12, ColumnTarget("state", classes=("good", "worn")))
    return Task(
        name="alike",
        model=Alike,
        loss=cross_entropy,
        metrics=[accuracy()],
        data=data,
        optimizer=sgd(momentum=0.9),
        learning_rate=0.05,
        batch_size=16,
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return built("alike", alike)  # with 20 steps beside float64 torch, running statistics included


def test_each_has_memory_of_its_own_for_its_statistics(bundle: Bundle, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(bundle.section("train.onnx"), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "as_run.onnx").graph
    made = {name for node in graph.node for name in node.output}
    read = Counter(name for node in graph.node for name in node.input)
    norms = [node for node in graph.node if node.op_type == "BatchNormalization" and len(node.output) > 1]
    assert len(norms) == NORMS
    for node in norms:
        for name in node.input[3:]:
            assert name in made
            assert read[name] == 1


def test_a_step_gives_the_same_each_time(bundle: Bundle) -> None:
    runtime = OnnxRuntime(bundle)
    batch = Arrays.of(bundle.manifest.data).sample(16, seed=3)
    found = []
    for _ in range(2):
        runtime.begin(bundle.initial_parameters())
        losses = [runtime.step(batch, learning_rate=0.05, seed=step) for step in range(5)]
        found.append((losses, runtime.parameters()))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("rows", [2, 3, 16])
def test_statistics_are_those_of_the_rows_that_are_there(bundle: Bundle, rows: int) -> None:
    """A weight of 0 takes a row out of the loss, not out of the statistics: so it is in torch."""
    runtime = OnnxRuntime(bundle)
    layout = bundle.manifest.layout
    batch = Arrays.of(bundle.manifest.data).sample(rows, seed=4)
    runtime.begin(bundle.initial_parameters())
    weights = np.ones(rows, np.float32)
    weights[0] = 0
    runtime.step(batch, learning_rate=0.0, seed=0, weights=weights)
    values = layout.unflatten(runtime.parameters())
    entry = torch.nn.functional.conv1d(
        torch.from_numpy(batch["x"]).transpose(1, 2), torch.from_numpy(values["entry.weight"].copy())
    )
    np.testing.assert_allclose(values["norms.1.running_mean"], 0.1 * entry.mean((0, 2)).numpy(), atol=1e-6)
    np.testing.assert_allclose(values["norms.1.running_var"], 0.9 + 0.1 * entry.var((0, 2)).numpy(), rtol=1e-5)
