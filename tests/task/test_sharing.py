"""Which tensors are shared, local and frozen, and what becomes of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldfold.errors import CompileError
from fieldfold.params import Layout
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, adamw, features, mean_squared_error, rmse, sgd
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.model import PreparedModel, prepare_model


class Split(nn.Module):
    """A body with BatchNorm and dropout under a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(x))
        return result


def task(**changes: object) -> Task:
    fields: dict[str, object] = {
        "name": "split",
        "model": Split,
        "loss": mean_squared_error,
        "metrics": [rmse()],
        "data": DataSchema(features=features("force", "heat"), window=3, target=ColumnTarget("wear")),
        "optimizer": sgd(momentum=0.5),
        "learning_rate": 0.1,
        "batch_size": 8,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def build(**changes: object) -> Bundle:
    return compile_task(task(**changes), lambda _: None)


def names(layout: Layout, kind: str = "") -> list[str]:
    return [spec.name for spec in layout.tensors if not kind or spec.kind == kind]


def batch(seed: int, rows: int = 8) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((rows, 3, 2), np.float32), "y": rng.standard_normal((rows, 1), np.float32)}


def sorted_out(**changes: object) -> PreparedModel:
    return prepare_model(task(**changes))


def test_everything_is_shared_unless_the_task_says_otherwise() -> None:
    prepared = sorted_out()
    assert names(prepared.layout, "parameter") == [
        "body.1.weight", "body.1.bias", "body.2.weight", "body.2.bias", "head.weight", "head.bias",
    ]  # fmt: skip
    assert names(prepared.layout, "buffer") == ["body.2.running_mean", "body.2.running_var"]
    assert not prepared.local.tensors
    assert not prepared.frozen.tensors
    assert list(prepared.constants) == ["body.2.num_batches_tracked"]


def test_patterns_choose_by_name() -> None:
    prepared = sorted_out(local=["*.2.*"], frozen=["head.bias"])
    assert names(prepared.layout) == ["body.1.weight", "body.1.bias", "head.weight"]
    assert names(prepared.local) == ["body.2.weight", "body.2.bias", "body.2.running_mean", "body.2.running_var"]
    assert names(prepared.frozen) == ["head.bias"]


def test_a_tied_weight_answers_to_both_of_its_names() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1))
        model[2].weight = model[1].weight
        return model

    assert names(sorted_out(model=tied, local=["2.weight"]).local) == ["1.weight"]


@pytest.mark.parametrize("field", ["local", "frozen"])
def test_a_pattern_that_fits_nothing_is_an_error_that_lists_the_names(field: str) -> None:
    with pytest.raises(CompileError, match=rf"{field} names 'heads\.\*', which fits no tensor") as caught:
        sorted_out(**{field: ["heads.*"]})
    assert "head.weight" in caught.value.hint


def test_local_and_frozen_exclude_each_other() -> None:
    with pytest.raises(CompileError, match=r"head\.bias is both local and frozen"):
        sorted_out(local=["head.*"], frozen=["*.bias"])


def test_something_must_be_shared() -> None:
    with pytest.raises(CompileError, match="every trained parameter is local"):
        sorted_out(local=["*.weight", "*.bias"])
    with pytest.raises(CompileError, match="no trainable parameter"):
        sorted_out(frozen=["*"])


def test_a_frozen_submodule_runs_as_in_evaluation_and_a_half_frozen_one_does_not() -> None:
    assert sorted_out(frozen=["body.*"]).resting == ("body", "body.1", "body.2")
    assert sorted_out(frozen=["body.?.weight", "body.?.bias"]).resting == ("body.1",)


def test_frozen_values_lie_in_the_bundle_and_not_in_the_vector_that_travels() -> None:
    bundle = build(frozen=["body.*"], optimizer=adamw())
    manifest = bundle.manifest
    assert names(manifest.layout) == ["head.weight", "head.bias"]
    assert bundle.initial_parameters().size == 9
    torch.manual_seed(0)
    np.testing.assert_array_equal(
        bundle.frozen_values()["body.1.weight"], Split().state_dict()["body.1.weight"].numpy()
    )
    assert max(manifest.optimizer_state) == (9,)
    graph = onnx.load_model_from_string(bundle.section("train.onnx")).graph
    assert not any("body" in initializer.name for initializer in graph.initializer)


def test_frozen_batch_norm_and_dropout_do_nothing_of_their_own() -> None:
    runtime = open_runtime(build(frozen=["body.*"]))
    ends = []
    for seed in (1, 2):
        runtime.begin(np.zeros(9, np.float32))
        runtime.step(batch(0), learning_rate=0.1, seed=seed)
        ends.append(runtime.parameters())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert ends[0].any()


@pytest.fixture(scope="module")
def personal() -> Bundle:
    """FedPer's head and FedBN's norm are local."""
    return build(local=["head.*", "body.2.*"])


def test_the_self_check_trains_them_too(personal: Bundle) -> None:
    runtime = open_runtime(personal)
    runtime.self_check()
    runtime.begin(personal.initial_parameters())
    np.testing.assert_array_equal(runtime.local(), personal.initial_local())


def test_local_values_are_trained_beside_the_shared_ones(personal: Bundle) -> None:
    manifest = personal.manifest
    assert names(manifest.local, "parameter") == ["body.2.weight", "body.2.bias", "head.weight", "head.bias"]
    assert names(manifest.local, "buffer") == ["body.2.running_mean", "body.2.running_var"]
    runtime = open_runtime(personal)
    shared, local = personal.initial_parameters(), personal.initial_local()
    runtime.begin(shared)
    np.testing.assert_array_equal(runtime.local(), local)
    for step in range(3):
        runtime.step(batch(step), learning_rate=0.1, seed=step)
    assert runtime.parameters().shape == shared.shape
    moved = manifest.local.unflatten(runtime.local())
    assert all((moved[name] != first).any() for name, first in manifest.local.unflatten(local).items())
    kept = runtime.local()
    runtime.begin(shared, local=kept)
    np.testing.assert_array_equal(runtime.local(), kept)
    np.testing.assert_array_equal(runtime.parameters(), shared)


def test_evaluation_and_prediction_use_the_local_values(personal: Bundle) -> None:
    runtime = open_runtime(personal)
    shared, local = personal.initial_parameters(), personal.initial_local()
    other = local.copy()
    other[slice(*personal.manifest.local.offsets["head.bias"])] += 1
    given, moved = (runtime.predict(shared, batch(0), values)["output"] for values in (local, other))
    np.testing.assert_array_equal(given, runtime.predict(shared, batch(0))["output"])
    np.testing.assert_allclose(moved, given + 1, rtol=1e-5)
    assert runtime.evaluate(shared, batch(0), other).loss != runtime.evaluate(shared, batch(0), local).loss


def test_the_proximal_term_holds_only_what_is_shared(personal: Bundle) -> None:
    layout, own = personal.manifest.layout, personal.manifest.local
    runtime = open_runtime(personal)
    moved = []
    for proximal in (0.0, 9.0):
        runtime.begin(personal.initial_parameters())
        for step in range(20):
            runtime.step(batch(step), learning_rate=0.05, seed=step, proximal=proximal)
        moved.append(
            (
                np.linalg.norm((runtime.parameters() - personal.initial_parameters())[: layout.num_trained]),
                np.linalg.norm((runtime.local() - personal.initial_local())[: own.num_trained]),
            )
        )
    assert moved[1][0] < 0.3 * moved[0][0]
    assert moved[1][1] > 0.3 * moved[0][1]


def test_vectors_of_another_length_are_refused(personal: Bundle) -> None:
    runtime = open_runtime(personal)
    shared, local = personal.initial_parameters(), personal.initial_local()
    for parameters, own in ((shared[1:], local), (shared, local[1:])):
        with pytest.raises(ValueError, match="does not fit"):
            runtime.begin(parameters, local=own)


def test_the_author_s_model_is_left_as_it_was() -> None:
    model = Split()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepared = prepare_model(task(model=model, frozen=["head.*"]))
    prepared.module.double()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.head.weight.requires_grad


def test_a_model_class_is_seeded_by_the_task() -> None:
    vectors = [sorted_out(seed=seed).first_values() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[1], vectors[2])
