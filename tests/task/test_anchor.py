"""A run that starts at one model and is pulled towards another, as a personal model is: in both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fieldfold.params import Vector, as_vector
from fieldfold.task import Bundle, RuntimeSettings, open_runtime
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd
from fieldfold.task.runtime import Runtime
from tests.task.built import built
from tests.task.linear import RATE, V, W, X, Y, by_hand, linear


def normed() -> Task:
    """With BatchNorm, whose statistics travel and are not trained, and momentum."""
    return Task(
        name="normed",
        model=lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)),
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features("force", "heat"), 1, ColumnTarget("wear")),
        optimizer=sgd(momentum=0.5),
        learning_rate=RATE,
        batch_size=len(X),
    )


@pytest.fixture(params=["onnx", "torch"])
def opened(request: pytest.FixtureRequest) -> Callable[[Bundle], Runtime]:
    settings = RuntimeSettings(runtime=request.param, device="cpu")
    return lambda bundle: open_runtime(bundle, settings)


def batch() -> dict[str, NDArray[Any]]:
    return {"x": X, "y": Y}


def walked(runtime: Runtime, steps: int, pull: float) -> Vector:
    for step in range(steps):
        runtime.step(batch(), learning_rate=RATE, seed=step, proximal=pull)
    return runtime.parameters()


@pytest.mark.parametrize("pull", [0.0, 0.1, 1.0, 1 / RATE])
@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_is_the_one_by_hand(opened: Callable[[Bundle], Runtime], steps: int, pull: float) -> None:
    runtime = opened(built("linear", linear))
    runtime.begin(V, anchor=W)
    np.testing.assert_allclose(walked(runtime, steps, pull), by_hand(steps, pull), rtol=1e-5, atol=1e-6)


def test_the_delta_counts_from_the_start_and_not_from_the_anchor(opened: Callable[[Bundle], Runtime]) -> None:
    runtime = opened(built("linear", linear))
    runtime.begin(V, anchor=W)
    np.testing.assert_array_equal(walked(runtime, 2, 0.5) - V, runtime.delta())


def test_without_an_anchor_the_start_is_it_also_after_a_run_that_had_one(
    opened: Callable[[Bundle], Runtime],
) -> None:
    runtime = opened(built("linear", linear))
    ends = []
    for anchors in ((None,), (V,), (W, None)):
        for anchor in anchors:
            runtime.begin(V, anchor=anchor)
            end = walked(runtime, 3, 0.5)
        ends.append(end)
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])


def test_the_anchor_is_a_copy(opened: Callable[[Bundle], Runtime]) -> None:
    runtime = opened(built("linear", linear))
    given = W.copy()
    runtime.begin(V, anchor=given)
    given.fill(np.nan)
    assert np.isfinite(walked(runtime, 1, 0.5)).all()


def test_an_anchor_of_another_length_is_refused(opened: Callable[[Bundle], Runtime]) -> None:
    with pytest.raises(ValueError, match="does not fit 2 parameters"):
        opened(built("linear", linear)).begin(V, anchor=as_vector([1.0]))


def test_the_runtimes_agree_and_nothing_pulls_the_statistics_of_batch_norm() -> None:
    bundle = built("normed", normed)
    layout = bundle.manifest.layout
    torch.manual_seed(1)
    start, anchor = (as_vector(torch.rand(layout.num_params).numpy()) for _ in range(2))
    ends: list[Vector] = []
    for name in ("onnx", "torch"):
        runtime = open_runtime(bundle, RuntimeSettings(runtime=name, device="cpu"))
        runtime.begin(start, anchor=anchor)
        ends.append(walked(runtime, 5, 2.0))
        runtime.begin(start, anchor=np.where(np.arange(anchor.size) < layout.num_trained, anchor, np.float32(9)))
        np.testing.assert_array_equal(walked(runtime, 5, 2.0), ends[-1])
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5, atol=1e-6)
