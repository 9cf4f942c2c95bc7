"""What a task may ask of the data, and the arrays that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.sensors.schema import (
    MAX_SCORED_CLASSES,
    ColumnTarget,
    DataSchema,
    Feature,
    InputTarget,
    LabelsTarget,
    RemainingLifeTarget,
    Target,
)

HEAT, FLOW = Feature("heat", "C"), Feature("flow")
MATERIAL = Feature("material", categories=("steel", "brass"), others=True)
TOOL = Feature("tool", categories=("drill", "mill"))
LIFE = RemainingLifeTarget()


def schema(*features: Feature, window: int = 4, target: Target | tuple[Target, ...] = LIFE) -> DataSchema:
    return DataSchema(features or (HEAT, FLOW), window, target)


def test_numbers_are_one_input_and_categories_another() -> None:
    mixed = schema(HEAT, MATERIAL, FLOW, TOOL)
    assert mixed.inputs == {"x": (0, 2), "c": (1, 3)}
    assert mixed.numeric == (0, 2)
    assert input_arrays(mixed) == (Array("x", "float32", (4, 2)), Array("c", "int64", (4, 2)))
    assert (MATERIAL.num_categories, TOOL.num_categories, HEAT.num_categories) == (3, 2, 0)


def test_features_may_name_their_input_and_inputs_follow_their_first_feature() -> None:
    heat, flow = (msgspec.structs.replace(f, input=name) for f, name in ((HEAT, "slow"), (FLOW, "fast")))
    assert schema(flow, heat).inputs == {"fast": (0,), "slow": (1,)}


def test_rows_without_windows_have_no_dimension_for_them() -> None:
    rows = schema(HEAT, MATERIAL, window=1, target=InputTarget())
    assert input_arrays(rows) == (Array("x", "float32", (1,)), Array("c", "int64", (1,)))
    assert target_arrays(rows) == (Array("y", "float32", (1,)),)


@pytest.mark.parametrize(
    ("target", "kind", "dtype", "shape"),
    [
        (ColumnTarget("wear"), "regression", "float32", (1,)),
        (ColumnTarget("wear", per_step=True), "regression", "float32", (4, 1)),
        (ColumnTarget("state", classes=("ok", "bad")), "classification", "int64", ()),
        (ColumnTarget("state", classes=("ok", "bad"), per_step=True), "classification", "int64", (4,)),
        (LabelsTarget(("leak", "jam", "hot")), "multi-label", "float32", (3,)),
        (LabelsTarget(("leak", "jam", "hot"), per_step=True), "multi-label", "float32", (4, 3)),
        (RemainingLifeTarget(), "regression", "float32", (1,)),
        (RemainingLifeTarget(per_step=True), "regression", "float32", (4, 1)),
        (InputTarget(), "autoencoder", "float32", (4, 2)),
    ],
)
def test_the_arrays_of_targets(target: Target, kind: str, dtype: Any, shape: tuple[int, ...]) -> None:
    assert schema(target=target).kind == kind
    assert target_arrays(schema(target=target)) == (Array("y", dtype, shape),)


STATE = ColumnTarget("state", classes=("ok", "bad"))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (STATE, STATE.classes),
        ((STATE, LIFE), STATE.classes),
        ((LIFE, STATE), ()),
        (ColumnTarget("wear"), ()),
        (msgspec.structs.replace(STATE, per_step=True), ()),
        (ColumnTarget("state", classes=tuple(map(str, range(MAX_SCORED_CLASSES + 1)))), ()),
    ],
)
def test_what_is_scored_class_by_class(target: Target | tuple[Target, ...], classes: tuple[str, ...]) -> None:
    assert schema(target=target).scored_classes == classes


def test_several_targets_are_numbered() -> None:
    both = schema(target=(RemainingLifeTarget(), ColumnTarget("state", classes=("ok", "bad"))))
    assert both.kind == "several targets"
    assert target_arrays(both) == (Array("y_0", "float32", (1,)), Array("y_1", "int64", ()))
    assert msgspec.json.decode(msgspec.json.encode(both), type=DataSchema) == both


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: schema(HEAT, HEAT), "features hold 'heat' twice"),
        (lambda: Feature("tool", categories=("1", "1.0")), "categories of tool hold '1' twice"),
        (lambda: Feature("tool", others=True), "others but no categories"),
        (lambda: ColumnTarget("state", classes=("ok", "ok")), "classes of state hold 'ok' twice"),
        (lambda: LabelsTarget(("leak", "leak")), "labels hold 'leak' twice"),
        (lambda: schema(target=(ColumnTarget("a"), LabelsTarget(("b", "a")))), "targets hold 'a' twice"),
        (lambda: schema(HEAT, msgspec.structs.replace(TOOL, input="x")), "input x mixes numbers and categories"),
        (lambda: schema(TOOL, target=InputTarget("c")), "no input c of numbers"),
        (lambda: schema(target=InputTarget("z")), "no input z of numbers"),
        (lambda: schema(msgspec.structs.replace(HEAT, input="y_1")), "may not be called y_1"),
        (lambda: schema(window=1, target=ColumnTarget("a", per_step=True)), "needs a window of more than one row"),
    ],
)
def test_what_contradicts_itself_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_wide_table_is_checked_in_no_time() -> None:
    wide = schema(*(Feature(f"f{n}", categories=tuple(map(str, range(1000)))) for n in range(512)))
    assert np.prod(input_arrays(wide)[0].shape) == 4 * 512
