"""What the parity gate trains on: batches at which the last bit of an activation decides nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fieldfold.task import Bundle
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd
from fieldfold.task.compile.build import compile_task
from fieldfold.task.compile.even_batches import EvenBatches, Trial
from fieldfold.task.compile.model import prepare_model
from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.samples import Arrays

FEATURES = 6
TRIAL = Trial(rows=8, seed=0, proximal=0.0, clip_norm=0.0, weighted=False)
SMOOTH = 1e-8
A_JUMP = 1e-6


class Bent(nn.Module):
    """A linear layer and a function of each of its values."""

    def __init__(self, function: Callable[[Tensor], Tensor], places: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, places), nn.Linear(places, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.first(x)))
        return result


def saw(x: Tensor) -> Tensor:
    """Edges wherever one looks: a million low teeth between 0 and 1."""
    return x * torch.where((x * 1e6).frac() < 0.5, 1.0, 0.999)


def task(function: Callable[[Tensor], Tensor], places: int = 8) -> Task:
    return Task(
        name="bent",
        model=lambda: Bent(function, places),
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DataSchema(features(*(f"axis_{n}" for n in range(FEATURES))), 1, ColumnTarget("load")),
        optimizer=sgd(momentum=0.9),
        learning_rate=0.01,
        batch_size=8,
    )


def reference(of: Task) -> ReferenceRun:
    return ReferenceRun(of, prepare_model(of), Arrays.of(of.data))


def largest_jump(function: Callable[[Tensor], Tensor]) -> float:
    made = task(function)
    return max(reference(made).unevenness(Arrays.of(made.data).sample(8, 0), seed=0))


def test_a_smooth_model_has_no_jumps() -> None:
    assert largest_jump(torch.tanh) < SMOOTH


def test_a_relu_jumps_only_at_its_edge() -> None:
    made = task(torch.relu, places=1)
    run, batch = reference(made), Arrays.of(made.data).sample(1, 0)
    assert max(run.unevenness(batch, seed=0)) < SMOOTH
    values = {name: array.astype("float32") for name, array in run.values().items()}
    values["first.bias"][:] = -(values["first.weight"] @ batch["x"][0])  # float32's rounding away from the edge
    run.load(values)
    assert max(run.unevenness(batch, seed=0)) > A_JUMP


def test_looking_for_jumps_changes_nothing() -> None:
    made = task(torch.relu)
    run, batch = reference(made), Arrays.of(made.data).sample(8, 0)
    before = run.values()
    assert list(run.unevenness(batch, seed=0))
    assert all((run.values()[name] == values).all() for name, values in before.items())


@pytest.mark.parametrize("places", [8, 2000])
def test_batches_with_nothing_on_an_edge_are_found(mlp_bundle: Bundle, places: int) -> None:
    made = task(torch.relu, places)
    run = reference(made)
    batches = EvenBatches(Arrays.of(made.data), mlp_bundle.manifest, TRIAL)
    for index in range(5):
        batch, options = batches.draw(index, run)
        assert max(run.unevenness(batch, seed=options["seed"])) < SMOOTH
        run.step(batch, **options)
    assert batches.even


def test_where_every_batch_has_edges_the_search_ends_and_the_author_is_told() -> None:
    told: list[str] = []
    compile_task(task(saw), told.append)
    assert any("in every batch rounding decides" in line for line in told)
