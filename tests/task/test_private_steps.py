"""Weights of examples, and DP-SGD: each example's gradient clipped by itself, and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from fieldfold.errors import CompileError, DataError
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.authoring import (
    ColumnTarget,
    DataSchema,
    PerExampleClipping,
    Task,
    features,
    mean_squared_error,
    rmse,
    sgd,
)
from fieldfold.task.compile.model import prepare_model
from tests.task.built import built

BATCH, RATE, NORM = 8, 0.1, 0.5


def task(**changes: object) -> Task:
    fields: dict[str, object] = {
        "name": "linear",
        "model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 1)),
        "loss": mean_squared_error,
        "metrics": [rmse()],
        "data": DataSchema(features=features("force", "heat"), window=3, target=ColumnTarget("wear")),
        "optimizer": sgd(),
        "learning_rate": RATE,
        "batch_size": BATCH,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> Bundle:
    return built("not-private", task)


@pytest.fixture(scope="module")
def private() -> Bundle:
    return built("private", lambda: task(privacy=PerExampleClipping(norm=NORM)))


def batch(rows: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(rows)
    return {"x": rng.standard_normal((rows, 3, 2), np.float32), "y": rng.standard_normal((rows, 1), np.float32)}


def first(data: dict[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
    return {name: array[:rows] for name, array in data.items()}


def gradients(bundle: Bundle, data: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Of each example, by hand: weight, then bias."""
    weight, bias = bundle.manifest.layout.unflatten(bundle.initial_parameters()).values()
    x = data["x"].reshape(len(data["x"]), -1).astype(np.float64)
    error = x @ weight.T.astype(np.float64) + bias - data["y"]
    found: NDArray[np.float64] = 2 * error * np.column_stack([x, np.ones(len(x))])
    return found


def moved(bundle: Bundle, data: dict[str, NDArray[Any]], **options: Any) -> NDArray[np.float64]:
    """What one step subtracts, over the learning rate."""
    runtime = open_runtime(bundle)
    runtime.begin(bundle.initial_parameters())
    runtime.step(data, learning_rate=RATE, seed=0, **options)
    return (bundle.initial_parameters() - runtime.parameters()).astype(np.float64) / RATE


@pytest.mark.parametrize("rows", [1, 2, 5, BATCH, 20])
def test_a_batch_may_have_any_number_of_rows(plain: Bundle, rows: int) -> None:
    np.testing.assert_allclose(moved(plain, batch(rows)), gradients(plain, batch(rows)).mean(0), atol=1e-5)


def test_the_loss_is_the_weighted_mean(plain: Bundle) -> None:
    weights = np.array([1, 0.5, 0, 2], np.float32)
    expected = weights @ gradients(plain, batch(4)) / weights.sum()
    np.testing.assert_allclose(moved(plain, batch(4), weights=weights), expected, atol=1e-5)


def test_a_row_of_weight_zero_is_as_good_as_none(plain: Bundle) -> None:
    weights = np.array([1, 1, 1, 0, 0], np.float32)
    masked, short = moved(plain, batch(5), weights=weights), moved(plain, first(batch(5), 3))
    np.testing.assert_allclose(masked, short, atol=1e-5)


@pytest.mark.parametrize(
    "weights", [[1, 1], [1, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, np.nan], [1, 1, 1, np.inf], [[1, 1, 1, 1]]]
)
def test_weights_that_make_no_mean_are_refused(plain: Bundle, weights: list[Any]) -> None:
    with pytest.raises(DataError, match="weights of a batch of 4 rows"):
        moved(plain, batch(4), weights=np.array(weights, np.float32))


@pytest.mark.parametrize("rows", [1, 3, BATCH])
def test_each_example_s_gradient_is_clipped_and_the_sum_divided_by_the_task_s_batch_size(
    private: Bundle, rows: int
) -> None:
    each = gradients(private, batch(rows))
    lengths = np.linalg.norm(each, axis=1, keepdims=True)
    assert lengths.max() > NORM
    clipped = each * np.minimum(1, NORM / lengths)
    np.testing.assert_allclose(moved(private, batch(rows)), clipped.sum(0) / BATCH, atol=1e-5)


def test_no_example_moves_the_model_farther_than_the_norm_allows(private: Bundle) -> None:
    data = batch(BATCH)
    data["y"][0] = 1e6
    others = {name: array[1:] for name, array in data.items()}
    difference = moved(private, data) - moved(private, others)
    assert np.linalg.norm(difference) <= NORM / BATCH * 1.001


def test_the_noise_comes_to_the_sum(private: Bundle) -> None:
    open_runtime(private).self_check()  # which knows no noise
    noise = np.arange(7, dtype=np.float32)
    difference = moved(private, batch(BATCH), noise=noise) - moved(private, batch(BATCH))
    np.testing.assert_allclose(difference, noise / BATCH, atol=1e-5)


def test_what_would_break_the_bound_is_refused(private: Bundle) -> None:
    with pytest.raises(DataError, match="9 rows"):
        moved(private, batch(BATCH + 1))
    with pytest.raises(DataError, match="from 0 to 1"):
        moved(private, batch(2), weights=np.array([1, 2], np.float32))


def test_what_looks_at_a_whole_batch_has_no_gradient_of_one_example() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    privacy = PerExampleClipping(norm=1.0)
    with pytest.raises(CompileError, match="2 mixes the examples of a batch") as caught:
        prepare_model(task(model=model, privacy=privacy))
    assert "GroupNorm" in caught.value.hint
    assert prepare_model(task(model=model, privacy=privacy, frozen=["2.*"])).resting == ("2",)
