from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldfold.errors import CompileError
from fieldfold.task import Bundle
from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    LearningRate,
    Task,
    features,
    mean_squared_error,
    rmse,
    sgd,
)
from fieldfold.task.bundle import SECTION_NAMES
from fieldfold.task.compile.build import build_file, compile_task
from fieldfold.task.compile.parity import TOLERANCE
from fieldfold.task.compile.task_file import load_task

TINY = DataSchema(features=features("force", "heat"), window=3, target=ColumnTarget("wear"))


def tiny(model: nn.Module | Callable[[], nn.Module], **changes: object) -> Task:
    fields: dict[str, object] = {
        "name": "tiny",
        "model": model,
        "loss": mean_squared_error,
        "metrics": [rmse()],
        "data": TINY,
        "optimizer": sgd(),
        "learning_rate": 0.1,
        "batch_size": 4,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 1))


class Refusal(nn.Module):
    """A linear model whose forward pass does something before."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = first
        self.last = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x).flatten(1))
        return result


def refuse(task: Task) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compile_task(task, lambda _: None)
    return caught.value


def test_the_build_measures_the_graph_against_float64_torch_on_two_batch_sizes() -> None:
    told: list[str] = []
    compile_task(tiny(linear), told.append)
    for runtime in ("onnx", "torch"):
        measured = [line for line in told if line.startswith(f"{runtime}, batches of")]
        assert len(measured) == 2
        errors = [float(line.rsplit(" ", 1)[1]) for line in measured]
        assert max(errors) < TOLERANCE


def test_graphs_are_plain_onnx_that_says_nothing_of_where_it_was_made(each_bundle: Bundle) -> None:
    for name in SECTION_NAMES[:3]:
        model = onnx.load_model_from_string(each_bundle.section(name))
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
        assert not model.functions
        assert not model.producer_name
        for node in model.graph.node:
            assert not any((node.domain, node.doc_string, node.metadata_props))
        assert not re.search(rb"\.py|site-packages|/home|/usr", each_bundle.section(name))


def test_only_the_batch_dimension_varies(each_bundle: Bundle) -> None:
    model = onnx.load_model_from_string(each_bundle.section("train.onnx"))
    varying = {
        (value.name, index)
        for value in model.graph.input
        for index, dim in enumerate(value.type.tensor_type.shape.dim)
        if not dim.HasField("dim_value")
    }
    assert varying == {("x", 0), ("y", 0), ("weights", 0)}


def test_a_mean_over_the_batch_is_not_a_loss() -> None:
    error = refuse(tiny(linear, loss=functional.mse_loss))
    assert "not one float an example" in error.reason
    assert "reduction='none'" in error.hint


def test_shapes_that_would_broadcast_are_refused() -> None:
    assert "shape" in refuse(tiny(lambda: nn.Sequential(linear(), nn.Flatten(0)))).reason


def test_an_error_of_the_model_is_told_with_the_shapes_it_was_called_with() -> None:
    error = refuse(tiny(lambda: nn.Linear(7, 1)))
    assert "a training step in torch fails" in error.reason
    assert "x float32 of shape (4, 3, 2)" in error.hint


def test_random_numbers_that_cannot_be_seeded_are_named() -> None:
    error = refuse(tiny(lambda: Refusal(lambda x: x + torch.randperm(2))))
    assert error.reason.startswith("the model calls randperm in Refusal (test_compile.py:")


@pytest.mark.parametrize(
    "first",
    [
        lambda x: x if bool(x.sum() > 0) else -x,
        lambda x: x[: int(x[0, 0, 0])].sum() + x,
        lambda x: x + torch.from_numpy(np.sin(x.detach().numpy())),
    ],
    ids=["branch", "length", "numpy"],
)
def test_what_depends_on_values_cannot_be_exported(first: Callable[[Tensor], Tensor]) -> None:
    assert "train.onnx graph cannot be made" in refuse(tiny(lambda: Refusal(first))).reason


@pytest.mark.parametrize("first", [lambda x: x - x.mean(0), lambda x: x + x[x > 0].mean()])
def test_an_example_that_looks_at_its_batch_fails_the_parity_gate(first: Callable[[Tensor], Tensor]) -> None:
    error = refuse(tiny(lambda: Refusal(first)))
    assert "differs from float64 torch" in error.reason
    assert "no example look at another" in error.hint


def test_a_model_with_nothing_to_train_is_refused() -> None:
    assert "no trainable parameter" in refuse(tiny(lambda: linear().requires_grad_(requires_grad=False))).reason


def test_a_learning_rate_at_which_training_explodes_is_refused() -> None:
    assert "not finite" in refuse(tiny(linear, learning_rate=1e30)).reason


def test_state_outside_buffers_fails_the_parity_gate() -> None:
    class Drifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = linear()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            result: Tensor = self.last(x) * self.calls
            return result

    assert "differs from float64 torch" in refuse(tiny(Drifting)).reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise OSError('no data')\n", r"broken\.py:2: OSError: no data"),
        ("TASK = (\n", r"broken\.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"broken\.py:2: SystemExit"),
        ("task = 1\n", "TASK is nothing"),
        ("TASK = 'x'\n", "TASK is a str"),
        ("from fieldfold.task.authoring import *\nTASK = Task(name='x')\n", r"broken\.py:2: TypeError"),
    ],
)
def test_a_task_file_that_does_not_work_is_told_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(CompileError, match=message):
        load_task(path)


def test_a_task_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"absent\.py: no such file"):
        build_file(tmp_path / "absent.py", lambda _: None)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "Wear & Tear", "name: Expected"),
        ("batch_size", 10**9, "batch_size: Expected `int` <= 65536"),
        ("local_steps", 0, "local_steps: Expected `int` >= 1"),
        ("learning_rate", 0.0, "learning_rate is 0.0, it must be above 0"),
        ("learning_rate", LearningRate(-1.0), "learning_rate: Expected `float` > 0"),
        ("optimizer", sgd(momentum=3), r"optimizer: Expected `float` < 1.0 - at `\.momentum`"),
        ("metrics", [rmse(unit="m" * 50)], "metric RMSE: Expected `str` of length <= 32"),
        ("data", DataSchema(features("a b"), 3, ColumnTarget("wear")), r"data: Expected .* `\.features\[0\]\.name`"),
        ("data", DataSchema(features("a", input="seed"), 3, ColumnTarget("wear")), "may not be called seed"),
    ],
)
def test_what_a_manifest_cannot_hold_is_refused_at_once(field: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tiny(linear, **{field: value})


def test_fields_of_the_wrong_kind_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="optimizer must be a Optimizer"):
        tiny(linear, optimizer="adam")
    with pytest.raises(TypeError, match="at least one Measure"):
        tiny(linear, metrics=[mean_squared_error])
    with pytest.raises(TypeError, match="loss must be a function"):
        tiny(linear, loss="mse")
    with pytest.raises(TypeError, match=r"features must hold Features, as features\('a', 'b'\) makes them"):
        DataSchema(features=("force", "heat"), window=3, target=ColumnTarget("wear"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 2"):
        tiny(linear, batch_size=1)
