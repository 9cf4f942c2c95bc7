"""Models with several inputs, outputs, losses and targets, and those that are their own target."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fieldfold.errors import CompileError
from fieldfold.sensors.arrays import Array
from fieldfold.sensors.dataset import load
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import normalisation
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    InputTarget,
    LabelsTarget,
    RemainingLifeTarget,
    Task,
    accuracy,
    adam,
    category,
    cross_entropy,
    features,
    label_accuracy,
    mean_squared_error,
    rmse,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.samples import Arrays
from tests.task.built import built


class LifeAndState(nn.Module):
    """Numbers and a category in, remaining life and a state out."""

    def __init__(self) -> None:
        super().__init__()
        self.tool = nn.Embedding(3, 4)
        self.body = nn.Sequential(nn.Linear(4 * 2 + 4 * 4, 8), nn.Tanh())
        self.life, self.state = nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor, c: Tensor) -> dict[str, Tensor]:
        found = self.body(torch.cat([x.flatten(1), self.tool(c).flatten(1)], 1))
        return {"life": self.life(found), "state": self.state(found)}


def life_and_state(outputs: dict[str, Tensor], life: Tensor, state: Tensor) -> Tensor:
    weighted = weighted_cross_entropy([1.0, 2.0, 3.0])
    return mean_squared_error(outputs["life"], life) + 0.5 * weighted(outputs["state"], state)


class TiedAutoencoder(nn.Module):
    """Decodes with the weight that it encodes with, and gives its code as well."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = torch.tanh(self.encode(x))
        return self.decode(code), code


class StateOfEveryStep(nn.Module):
    """Class scores and label scores of each row of a window."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv1d(2, 8, 3, padding=1)
        self.state, self.labels = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.relu(self.rows(x.transpose(1, 2))).transpose(1, 2)
        return self.state(found), self.labels(found)


def states_and_labels(scores: tuple[Tensor, Tensor], states: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(scores[0], states) + weighted_binary_cross_entropy([2.0, 1.0])(scores[1], labels)


STATES = ("good", "worn", "broken")
TASKS = {
    "two-heads": Task(
        name="two-heads",
        model=LifeAndState,
        loss=life_and_state,
        metrics=[rmse(scale=125).of("life"), accuracy().of("state", target=1)],
        data=DataSchema(
            features=(*features("force", "heat"), category("tool", "drill", "mill", others=True)),
            window=4,
            target=(RemainingLifeTarget(scale=125), ColumnTarget("state", classes=STATES)),
        ),
        optimizer=adam(),
        learning_rate=1e-2,
        batch_size=16,
    ),
    "tied-autoencoder": Task(
        name="tied-autoencoder",
        model=TiedAutoencoder,
        loss=lambda outputs, target: mean_squared_error(outputs[0], target),
        metrics=[rmse().of(0).named("rebuilt")],
        data=DataSchema(features("a", "b", "c"), 1, InputTarget()),
        optimizer=adam(),
        learning_rate=1e-2,
        batch_size=16,
    ),
    "every-step": Task(
        name="every-step",
        model=StateOfEveryStep,
        loss=states_and_labels,
        metrics=[accuracy().of(0), label_accuracy().of(1, target=1)],
        data=DataSchema(
            features("force", "heat"),
            6,
            (ColumnTarget("state", classes=STATES, per_step=True), LabelsTarget(("leak", "jam"), per_step=True)),
        ),
        optimizer=adam(),
        learning_rate=1e-2,
        batch_size=16,
    ),
}

TASKS["torchs-loss"] = Task(
    name="torchs-loss",
    model=lambda: nn.Linear(3, 3),
    loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), reduction="none", label_smoothing=0.1),
    metrics=[accuracy()],
    data=DataSchema(features("a", "b", "c"), 1, ColumnTarget("state", classes=STATES)),
    optimizer=adam(),
    learning_rate=1e-2,
    batch_size=16,
)


@cache
def bundle_of(name: str) -> Bundle:
    return built(f"inputs-{name}", lambda: TASKS[name])


def sample(name: str, rows: int = 16) -> dict[str, np.ndarray[Any, Any]]:
    return Arrays.of(TASKS[name].data).sample(rows, 1)


@pytest.mark.parametrize("name", TASKS)
def test_it_trains_on_a_gateway(name: str) -> None:
    bundle = bundle_of(name)
    runtime = open_runtime(bundle)
    runtime.self_check()
    runtime.begin(bundle.initial_parameters())
    losses = [runtime.step(sample(name), learning_rate=1e-2, seed=step) for step in range(60)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", TASKS)
def test_what_a_gateway_reads_is_what_the_graph_takes(name: str, tmp_path: Path) -> None:
    """From a table of text to a step, with nothing said twice: the manifest alone says what is read."""
    bundle = bundle_of(name)
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {column: rng.normal(size=40).tolist() for column in ("force", "heat", *"abc")}
    columns["tool"] = rng.choice(["drill", "mill", "saw"], 40).tolist()
    columns["state"] = rng.choice(STATES, 40).tolist()
    columns |= {label: rng.integers(0, 2, 40).tolist() for label in ("leak", "jam")}
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (tmp_path / "press.csv").write_text("\n".join(lines))
    dataset = load(bundle.manifest.data, DataConfig(files=("press.csv",)), tmp_path)
    dataset = dataset.normalised(normalisation(dataset.sums))
    runtime = open_runtime(bundle)
    runtime.begin(bundle.initial_parameters())
    batch = next(dataset.train.batches(16, rng))
    assert np.isfinite(runtime.step(batch, learning_rate=1e-3, seed=0))
    assert runtime.evaluate(runtime.parameters(), dataset.validation.all()).num_examples == len(dataset.validation)


def test_inputs_targets_and_outputs_stand_in_the_manifest() -> None:
    manifest = bundle_of("two-heads").manifest
    assert manifest.kind == "several targets"
    assert manifest.inputs == (Array("x", "float32", (4, 2)), Array("c", "int64", (4, 1)))
    assert manifest.targets == (Array("y_0", "float32", (1,)), Array("y_1", "int64", ()))
    assert manifest.outputs == (Array("output.life", "float32", (1,)), Array("output.state", "float32", (3,)))
    assert bundle_of("every-step").manifest.outputs[0] == Array("output.0", "float32", (6, 3))


def test_each_head_is_predicted_and_measured_by_itself() -> None:
    bundle = bundle_of("two-heads")
    runtime, batch = open_runtime(bundle), sample("two-heads", 50)
    found = runtime.predict(bundle.initial_parameters(), batch)
    assert {name: array.shape for name, array in found.items()} == {"output.life": (50, 1), "output.state": (50, 3)}
    assert runtime.evaluate(bundle.initial_parameters(), batch).metrics == {
        "RMSE": pytest.approx(125 * float(np.sqrt(((found["output.life"] - batch["y_0"]) ** 2).mean())), rel=1e-5),
        "accuracy": pytest.approx(float((found["output.state"].argmax(1) == batch["y_1"]).mean())),
    }


def test_a_tied_weight_travels_once_and_stays_tied() -> None:
    bundle = bundle_of("tied-autoencoder")
    assert [spec.name for spec in bundle.manifest.layout.tensors] == ["encode.weight"]
    weight, batch = bundle.initial_parameters().reshape(3, 3), sample("tied-autoencoder")
    found = open_runtime(bundle).predict(bundle.initial_parameters(), batch)
    np.testing.assert_allclose(found["output.0"], np.tanh(batch["x"] @ weight.T) @ weight.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda _: [], "gives no tensor at all"),
        (lambda _: "text", "gives a str"),
        (lambda x: {"a": x, "b": 1}, "gives a int as b"),
        (lambda x: {"../a": x}, r"an output called '\.\./a'"),
    ],
)
def test_what_is_no_output_is_named(forward: Any, says: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Any:
            return forward(x * self.weight)

    task = Task(
        name="odd",
        model=Odd,
        loss=lambda _, target: target.mean(1),
        metrics=[rmse()],
        data=DataSchema(features("a", "b"), 1, ColumnTarget("y")),
        optimizer=adam(),
        learning_rate=1e-3,
    )
    with pytest.raises(CompileError, match=says):
        compile_task(task, lambda _: None)
