"""Columns of text: categories, classes and labels, from a file to a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fieldfold.errors import ConfigError, DataError
from fieldfold.sensors.dataset import Dataset, load
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature, InputTarget, LabelsTarget, Target
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import FeatureSums, normalisation

TOOL = Feature("tool", categories=("drill", "mill", "3"))
ANY_TOOL = msgspec.structs.replace(TOOL, others=True)
FORCE, HEAT = Feature("force"), Feature("heat")
WEAR = ColumnTarget("wear")


def schema(*features: Feature, target: Target | tuple[Target, ...] = WEAR, window: int = 1) -> DataSchema:
    return DataSchema(features, window, target)


def loaded(folder: Path, text: str, task: DataSchema, **options: Any) -> Dataset:
    (folder / "press.csv").write_text(text)
    return load(task, DataConfig(files=("press.csv",), **options), folder, held_out=True)


def batch(folder: Path, text: str, task: DataSchema, **options: Any) -> dict[str, Any]:
    return {name: array.tolist() for name, array in loaded(folder, text, task, **options).test.all().items()}


def test_categories_are_indices_beside_the_numbers(tmp_path: Path) -> None:
    text = "heat,tool,force,wear\n1,drill,10,0\n2, mill ,20,0\n3,3.0,30,0\n"
    found = batch(tmp_path, text, schema(FORCE, TOOL, HEAT))
    assert found["x"] == [[10, 1], [20, 2], [30, 3]]
    assert found["c"] == [[0], [1], [2]]


def test_a_task_may_know_categories_only(tmp_path: Path) -> None:
    assert batch(tmp_path, "tool,wear\nmill,1\ndrill,2\n", schema(TOOL)) == {"c": [[1], [0]], "y": [[1], [2]]}
    np.savez(tmp_path / "press.npz", tool=np.array(["mill", "drill"]), wear=np.array([1.0, 2.0]))
    dataset = load(schema(TOOL), DataConfig(files=("press.npz",)), tmp_path, held_out=True)
    assert dataset.test.all()["c"].tolist() == [[1], [0]]


def test_an_unknown_category_stops_with_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, "tool,wear\nlathe,1\n", schema(TOOL))
    assert str(caught.value).endswith(
        "press.csv (data.columns.tool): category 'lathe' is none of the task's; "
        "it knows drill, mill, 3; list it in data.missing_values to leave such rows out"
    )


def test_an_unknown_category_is_the_last_index_where_the_task_takes_others(tmp_path: Path) -> None:
    found = batch(tmp_path, "tool,wear\nlathe,1\nmill,2\nsaw,3\n", schema(ANY_TOOL))
    assert found["c"] == [[3], [1], [3]]


@pytest.mark.parametrize("feature", [TOOL, ANY_TOOL])
def test_a_missing_category_leaves_its_windows_out(tmp_path: Path, feature: Feature) -> None:
    dataset = loaded(tmp_path, "tool,wear\n,1\nmill,2\nbroken,3\n", schema(feature), missing_values=("broken",))
    assert dataset.test.all()["y"].tolist() == [[2]]
    assert dataset.report.dropped_windows == {"missing value": 2}
    assert dataset.report.missing_cells == 2


def test_only_numbers_have_statistics_and_are_normalised(tmp_path: Path) -> None:
    text = "force,tool,heat,wear\n1,mill,10,1\n3,mill,30,1\n"
    task = schema(FORCE, TOOL, HEAT, target=(WEAR, InputTarget()))
    (tmp_path / "press.csv").write_text(text)
    dataset = load(task, DataConfig(files=("press.csv",)), tmp_path)
    assert dataset.sums == FeatureSums((2, 2), (4, 40), (10, 1000))
    scaled = dataset.normalised(normalisation(dataset.sums)).train.all()
    assert scaled["x"].tolist() == scaled["y_1"].tolist() == [[-1, -1], [1, 1]]
    assert scaled["c"].tolist() == [[1], [1]]
    with pytest.raises(DataError, match="is for 2 features, the task has 0 numbers"):
        loaded(tmp_path, text, schema(TOOL)).normalised(normalisation(dataset.sums))


def test_a_task_of_categories_only_has_empty_statistics(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, "tool,wear\nmill,1\n", schema(TOOL))
    assert dataset.sums == FeatureSums((), (), ())
    assert dataset.normalised(normalisation(dataset.sums)).test.all()["c"].tolist() == [[1]]


LEAK_AND_JAM = schema(FORCE, target=LabelsTarget(("leak", "jam")))


def test_labels_are_0_and_1_however_they_are_written(tmp_path: Path) -> None:
    text = "force,leak,jam\n1,0,1\n2,False,TRUE\n3,no,Yes\n4,0.0,1.0\n"
    assert batch(tmp_path, text, LEAK_AND_JAM)["y"] == [[0, 1]] * 4
    np.savez(tmp_path / "press.npz", force=np.ones(2), leak=np.array([False, True]), jam=np.array([1.0, 0.0]))
    dataset = load(LEAK_AND_JAM, DataConfig(files=("press.npz",)), tmp_path, held_out=True)
    assert dataset.test.all()["y"].tolist() == [[0, 1], [1, 0]]


def test_a_label_that_says_something_else_is_refused_and_a_missing_one_leaves_its_windows_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(data\.columns\.jam\): label '2' is none of the task's"):
        loaded(tmp_path, "force,leak,jam\n1,0,2\n", LEAK_AND_JAM)
    dataset = loaded(tmp_path, "force,leak,jam\n1,0,\n2,1,1\n", LEAK_AND_JAM)
    assert dataset.test.all()["y"].tolist() == [[1, 1]]
    assert dataset.report.dropped_windows == {"missing target": 1}


def test_each_target_of_several_may_have_its_own_column(tmp_path: Path) -> None:
    task = schema(FORCE, target=(WEAR, ColumnTarget("state", classes=("ok", "bad")), LabelsTarget(("leak",))))
    text = "force,Wear um,State,leak\n1,5,bad,0\n"
    columns = {"wear": "Wear um", "state": 3}
    assert batch(tmp_path, text, task, columns=columns) == {"x": [[1]], "y_0": [[5]], "y_1": [1], "y_2": [[0]]}
    with pytest.raises(ConfigError, match=r"data\.target: the task has several; name wear, state, leak in"):
        loaded(tmp_path, text, task, target="Wear um")


def test_a_single_target_may_stand_in_either_table(tmp_path: Path) -> None:
    text = "force,Wear um,other\n1,5,6\n"
    assert batch(tmp_path, text, schema(FORCE), target="Wear um")["y"] == [[5]]
    assert batch(tmp_path, text, schema(FORCE), columns={"wear": "Wear um"})["y"] == [[5]]
    assert batch(tmp_path, text, schema(FORCE), columns={"wear": "Wear um"}, target="other")["y"] == [[6]]


def test_a_feature_may_be_the_target_too(tmp_path: Path) -> None:
    found = batch(tmp_path, "force\n1\n2\n3\n", schema(FORCE, target=ColumnTarget("force", per_step=True), window=2))
    assert found == {"x": [[[1], [2]], [[2], [3]]], "y": [[[1], [2]], [[2], [3]]]}


def test_the_report_tells_of_every_target_and_nothing_of_the_range_of_indices(tmp_path: Path) -> None:
    state = ColumnTarget("state", classes=("ok", "bad"), per_step=True)
    task = DataSchema(
        (FORCE, TOOL),
        2,
        (msgspec.structs.replace(WEAR, offset=1, scale=2, unit="um"), state, InputTarget()),
        stride=2,
    )
    text = "force,tool,wear,state\n1,mill,1,ok\n2,mill,2,bad\n3,drill,3,bad\n4,,4,ok\n5,mill,5,ok\n6,mill,6,ok\n"
    report = loaded(tmp_path, text, task).report
    wear, states, itself = report.targets
    assert (wear.name, wear.unit, wear.minimum, wear.mean, wear.maximum) == ("wear", "um", 2, 4, 6)
    assert (states.name, states.classes) == ("state", {"ok": 3, "bad": 1})
    assert itself.name == "input"
    assert [(feature.missing, feature.maximum) for feature in report.features] == [(0, 6), (1, None)]


def test_the_report_counts_where_each_label_holds(tmp_path: Path) -> None:
    report = loaded(tmp_path, "force,leak,jam\n1,0,1\n2,1,1\n", LEAK_AND_JAM).report
    assert report.targets[0].classes == {"leak": 1, "jam": 2}
