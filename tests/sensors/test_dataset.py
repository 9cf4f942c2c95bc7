"""From `[data]` to parts, sums and the report that screens show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fieldfold.errors import ConfigError, DataError
from fieldfold.sensors.dataset import Dataset, assemble, load, require_batch
from fieldfold.sensors.report import DataReport
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature, RemainingLifeTarget
from fieldfold.sensors.source import DataConfig, Reading, Series
from fieldfold.sensors.statistics import normalisation
from fieldfold.settings import convert

LIFE = DataSchema(features=(Feature("speed", "rpm"), Feature("heat")), window=3, target=RemainingLifeTarget(cap=5))
STATE = DataSchema(features=(Feature("speed"),), window=2, target=ColumnTarget("state", classes=("ok", "worn")))


def fleet(count: int, rows: int, schema: DataSchema = LIFE) -> list[Series]:
    rng = np.random.default_rng(0)
    return [Series(str(n), rng.normal(n, 1, (rows, len(schema.features)))) for n in range(count)]


def used_rows(dataset: Dataset, part: str) -> set[int]:
    windows = getattr(dataset, part)
    return {row for start in windows.starts for row in range(start, start + windows.window)}


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_no_row_is_in_two_parts(count: int) -> None:
    schema = msgspec.structs.replace(LIFE, test_fraction=0.3)
    dataset = assemble(schema, Reading(fleet(count, 60)))
    train, validation, test = (used_rows(dataset, part) for part in ("train", "validation", "test"))
    assert train
    assert validation
    assert len(train | validation | test) == len(train) + len(validation) + len(test)
    assert dataset.report.rows == 60 * count


def test_sums_are_over_the_rows_that_train() -> None:
    dataset = assemble(LIFE, Reading(fleet(20, 30)))
    train = dataset.train.rows[sorted(used_rows(dataset, "train"))]
    assert dataset.sums.count == (float(len(train)), float(len(train)))
    assert dataset.sums.total == pytest.approx(train.sum(axis=0))
    assert 0 < len(train) < 600


def test_normalised_parts_share_one_float32_copy() -> None:
    raw = assemble(LIFE, Reading(fleet(20, 30)))
    dataset = raw.normalised(normalisation(raw.sums))
    assert dataset.train.rows is dataset.validation.rows is dataset.test.rows
    assert dataset.train.rows.dtype == np.float32
    assert dataset.train.rows[sorted(used_rows(raw, "train"))].mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert np.array_equal(dataset.train.starts, raw.train.starts)
    assert raw.train.rows.dtype == np.float64


def test_held_out_data_is_all_test() -> None:
    dataset = assemble(LIFE, Reading(fleet(10, 30)), held_out=True, last_only=True)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (0, 0, 10)


def test_the_report_tells_what_became_of_the_data(tmp_path: Path) -> None:
    body = "".join(f"{engine},{row},{row * 2}\n" for engine in range(8) for row in range(10))
    (tmp_path / "a.csv").write_text("engine,speed,heat\n" + body + "8,1,1\n9,1,\n9,1,?\n9,2,2,2\n")
    config = DataConfig(
        files=("*.csv",), series="engine", bad_cells="drop", include_series=tuple(n for n in range(10) if n != 3)
    )
    report = load(LIFE, config, tmp_path).report
    assert (report.num_files, report.rows, report.series) == (1, 73, 9)
    assert (report.missing_cells, report.bad_cells) == (2, 1)
    assert report.dropped_rows == {
        "wrong number of cells in the line": 1,
        "series of other gateways": 10,
        "shorter than a window": 3,
    }
    assert report.dropped_windows == {}
    assert sum(part.windows for part in report.parts.values()) == 7 * 8
    assert sum(part.series for part in report.parts.values()) == 9
    (target,) = report.targets
    assert (target.name, target.minimum, target.maximum) == ("remaining life", 0, 5)
    assert sum(target.counts) == 7 * 8
    assert len(target.edges) == len(target.counts) + 1
    speed, heat = report.features
    assert (speed.name, speed.unit, speed.missing, speed.minimum, speed.maximum) == ("speed", "rpm", 0, 0, 9)
    assert heat.missing == 2
    assert msgspec.json.decode(msgspec.json.encode(report), type=DataReport) == report


def test_the_report_counts_classes_and_dropped_windows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("speed,state\n" + "1,ok\n2,worn\n3,ok\n4,\n,ok\n5,ok\n6,ok\n")
    report = load(STATE, DataConfig(files=("a.csv",)), tmp_path, held_out=True).report
    assert report.targets[0].classes == {"ok": 2, "worn": 1}
    assert report.dropped_windows == {"missing value": 2, "missing target": 1}


def test_a_single_series_loses_a_gap_between_its_parts() -> None:
    report = assemble(LIFE, Reading(fleet(1, 100))).report
    assert report.dropped_rows == {"gap between the parts of a single series": 3}
    assert {part: found.series for part, found in report.parts.items()} == {"train": 1, "validation": 1, "test": 0}


def test_data_without_a_window_is_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("speed,heat\n1,2\n3,4\n")
    with pytest.raises(DataError) as caught:
        load(LIFE, DataConfig(files=("a.csv",)), tmp_path)
    assert str(caught.value).startswith("2 rows in 1 series give no window of 3 rows (shorter than a window: 2); ")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="0 rows in 0 series give no window of 3 rows; "):
        load(LIFE, DataConfig(files=("a.csv",)), tmp_path)
    (tmp_path / "a.csv").write_text("speed,heat\n" + ",1\n" * 5)
    with pytest.raises(DataError, match=r"\(missing value: 3\); "):
        load(LIFE, DataConfig(files=("a.csv",)), tmp_path)
    assert np.isnan(assemble(LIFE, Reading(fleet(2, 9))).train.rows).sum() == 0


def test_fewer_windows_than_a_batch_are_refused() -> None:
    dataset = assemble(LIFE, Reading(fleet(2, 12)))
    require_batch(dataset, 10)
    with pytest.raises(DataError, match="gives 10 windows to train on, a batch of this task needs 11; name more"):
        require_batch(dataset, 11)


def test_a_table_of_the_configuration_file_becomes_a_data_config() -> None:
    table: dict[str, Any] = {
        "files": ["logs/*.csv.gz"],
        "columns": {"speed": "n", "heat": 4},
        "series": 1,
        "include_series": [3, "pump A"],
        "header": True,
    }
    config = convert(table, DataConfig, "node.toml")
    assert (config.columns, config.series, config.include_series) == ({"speed": "n", "heat": 4}, 1, (3, "pump A"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file": []}, "node.toml: file: no such key; did you mean files?"),
        ({"files": []}, "node.toml: files: "),
        ({"delimiter": "ab"}, "delimiter 'ab' is neither auto, whitespace nor a separating character"),
        ({"delimiter": "5"}, "delimiter '5' is neither"),
        ({"header": "yes"}, "node.toml: header: "),
        ({"columns": {"speed": 0}}, "node.toml: columns[...]: "),
        ({"bad_cells": "ignore"}, "node.toml: bad_cells: "),
        ({"windows": "first"}, "node.toml: windows: "),
    ],
)
def test_mistakes_in_the_table_are_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert({"files": ["a.csv"]} | change, DataConfig, "node.toml")
    assert says in str(caught.value)
