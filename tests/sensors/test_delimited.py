"""Delimited text: what is understood by itself, and what each mistake in a file is answered with."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldfold.errors import ConfigError, DataError
from fieldfold.sensors import files, lines
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature, RemainingLifeTarget
from fieldfold.sensors.source import MAX_LINE_BYTES, DataConfig, Reading

LIFE = DataSchema(features=(Feature("speed"), Feature("heat")), window=2, target=RemainingLifeTarget())
STATE = DataSchema(features=(Feature("speed"),), window=2, target=ColumnTarget("state", classes=("ok", "worn", "2")))


def reading(folder: Path, text: str | bytes, schema: DataSchema = LIFE, **options: Any) -> Reading:
    data = text.encode() if isinstance(text, str) else text
    (folder / "pump.csv").write_bytes(data)
    return files.read(schema, DataConfig(files=("pump.csv",), **options), folder)


def refused(folder: Path, text: str | bytes, schema: DataSchema = LIFE, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        reading(folder, text, schema, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.hint
    return message.replace(str(folder), "DIR")


@pytest.mark.parametrize(
    "text",
    [
        "speed,heat\n1,10\n2,20\n",
        "heat;noise;speed\r\n10;x;1\r\n20;y;2\r\n",
        "speed\theat\n1\t10\n2\t20",
        "\ufeff\n\n speed | heat \n\n 1 | 10 \n\n 2 | 20 \n\n",
        'speed,heat\n"1","10"\n2,20\n',
        "  speed   heat\n1  10 \n 2 20",
        "speed,heat\n1,10,,\n2,20,,\n",
    ],
)
def test_delimiter_header_quotes_and_line_ends_are_recognised(tmp_path: Path, text: str) -> None:
    (series,) = reading(tmp_path, text).series
    assert series.id == "pump.csv"
    assert series.values.tolist() == [[1, 10], [2, 20]]
    assert series.values.dtype == np.float64


def test_columns_are_found_by_number_where_there_is_no_header(tmp_path: Path) -> None:
    (series,) = reading(tmp_path, "x 1 10\ny 2 20\n", columns={"speed": 2, "heat": 3}).series
    assert series.values.tolist() == [[1, 10], [2, 20]]


def test_columns_are_found_by_another_name(tmp_path: Path) -> None:
    (series,) = reading(tmp_path, "n,T\n1,10\n", columns={"speed": "n", "heat": "T"}).series
    assert series.values.tolist() == [[1, 10]]


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    (series,) = reading(tmp_path, gzip.compress(b"speed,heat\n1,10\n")).series
    assert series.values.tolist() == [[1, 10]]


def test_a_series_column_and_an_order_take_the_rows_apart(tmp_path: Path) -> None:
    text = "id,t,speed,heat\n10,2024-05-01T10:00:02Z,2,0\n9,5,0,0\n10,2024-05-01T10:00:01,1,0\n"
    with pytest.raises(DataError, match="'5' says no place in the series"):
        reading(tmp_path, text, series="id", order="t")
    found = reading(tmp_path, text.replace(",5,", ",2024-05-01 09:00+02:00,"), series="id", order=2).series
    assert [series.id for series in found] == ["9", "10"]
    assert found[1].values[:, 0].tolist() == [1, 2]


def test_a_series_goes_on_in_the_next_file_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "day2.csv").write_text("id,speed,heat\nA,3,0\n")
    (tmp_path / "day1.csv").write_text("id,speed,heat\nA,1,0\nB,9,0\nA,2,0\n")
    found = files.read(LIFE, DataConfig(files=("*.csv", "day1.csv"), series="id"), tmp_path)
    assert {series.id: series.values[:, 0].tolist() for series in found.series} == {"A": [1, 2, 3], "B": [9]}
    assert [(file.name, file.rows) for file in found.files] == [("day1.csv", 3), ("day2.csv", 1)]


def test_only_included_series_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    text = "id,speed,heat\n1.0,1,0\n2.0,2,0\n3.0,3,0\n"
    found = reading(tmp_path, text, series="id", include_series=(3, "1"))
    assert [series.id for series in found.series] == ["1", "3"]
    assert found.dropped_rows == {files.OTHER_SERIES: 1}
    message = refused(tmp_path, text, series="id", include_series=(3, 7))
    assert message == "data.include_series: 7: in none of the files; series there: 1, 2, 3"


def test_missing_values_become_nan_and_are_counted(tmp_path: Path) -> None:
    text = "speed,heat\n1,\nNA,2\nnan,inf\n-999,1e31\n5,6\n"
    found = reading(tmp_path, text, missing_values=("NA", "-999"))
    assert np.isnan(found.series[0].values).tolist() == [[False, True], [True, False]] + [[True, True]] * 2 + [
        [False, False]
    ]
    assert found.files[0].missing_cells == 6
    found = reading(tmp_path, "speed,heat\n-999,1\n", missing_values=("-999",))
    assert found.files[0].missing_cells == 1


def test_text_where_a_number_belongs_names_file_line_and_column(tmp_path: Path) -> None:
    text = "speed,heat\n\n1,10\n2,hot\n"
    assert refused(tmp_path, text).startswith("DIR/pump.csv, line 4, column 2 (heat): 'hot' is not a number; ")
    assert "line 2, column 1: '1_0'" in refused(tmp_path, "1 2\n1_0 3\n", columns={"speed": 1, "heat": 2})
    assert "decimal points" in refused(tmp_path, "speed;heat\n1,5;2,5\n")
    assert len(refused(tmp_path, "speed,heat\n1," + "x" * 10_000)) < 300


def test_bad_cells_may_be_taken_for_missing(tmp_path: Path) -> None:
    found = reading(tmp_path, "speed,heat\n1,hot\n2\n3,30\n4,40,50\n", bad_cells="drop")
    assert np.isnan(found.series[0].values[0, 1])
    assert found.series[0].values[:, 0].tolist() == [1, 3]
    assert (found.files[0].bad_cells, found.files[0].missing_cells) == (1, 1)
    assert found.dropped_rows == {files.DAMAGED_LINE: 2}


def test_the_line_is_right_far_into_a_long_file(tmp_path: Path) -> None:
    count = 3 * lines.BLOCK_BYTES // 20
    rows = ["12345.678,87654.321"] * count
    rows[-2] = "1,?"
    message = refused(tmp_path, "speed,heat\n" + "\n".join(rows))
    assert f"line {count}, column 2 (heat)" in message


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b\n1,2\n", {}, "there is no column 'speed' (data.columns.speed); columns there: a, b"),
        ("speed,heat,heat\n1,2,3\n", {}, "column 'heat' (data.columns.heat) stands there 2 times; "),
        ("1,2\n", {}, "cannot be found, there is no header line; set data.columns.speed to the column's number"),
        ("1,2\n", {"columns": {"speed": 1, "heat": 3}}, "there is no column 3 (data.columns.heat); it has 2 columns"),
        ("speed,heat\n1,2\n3\n", {}, "line 3: 1 cells where the first line has 2"),
        ("speed,heat\n1,2\n3,4,5\n", {}, "line 3: 3 cells where the first line has 2"),
        ('speed,heat\n1,"2\n', {"delimiter": ","}, "line 2: unexpected end of data: '1,\"2'; correct"),
        ("speed,heat\n1,2\n", {"series": "id"}, "there is no column 'id' (data.series)"),
        ("id,speed,heat\n,1,2\n", {"series": "id"}, "a row names no series (data.series)"),
        ("t,speed,heat\nnan,1,2\n", {"order": "t"}, "says no place in the series"),
        (b"speed,heat\n1,\xff\n", {}, "line 2: is not UTF-8 text"),
        (b"speed,heat\n1,\0\n", {}, "holds binary data"),
        (gzip.compress(b"speed,heat\n1,2\n" * 999, mtime=0)[:-9], {}, "is damaged or cut off"),
        (b"\x1f\x8bnonsense", {}, "is damaged or cut off"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str | bytes, options: dict[str, Any], says: str) -> None:
    message = refused(tmp_path, text, **options)
    assert says in message
    assert message.startswith("DIR/pump.csv")


def test_quoted_text_is_one_cell(tmp_path: Path) -> None:
    (series,) = reading(tmp_path, 'id,speed,heat\n"line 1, pump 2",1,2\n', series="id").series
    assert series.id == "line 1, pump 2"


def test_a_line_or_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a line is longer" in refused(tmp_path, gzip.compress(b"1" * (5 * MAX_LINE_BYTES)))
    monkeypatch.setattr(lines, "MAX_FILE_BYTES", 1000)
    assert "holds more than 1000 bytes" in refused(tmp_path, "speed,heat\n" + "1,2\n" * 1000)


def test_files_that_cannot_be_found_or_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.files: logs/\*\.csv matches no file in .*; paths are relative"):
        files.read(LIFE, DataConfig(files=("logs/*.csv",)), tmp_path)
    with pytest.raises(DataError, match="is no pattern for files"):
        files.read(LIFE, DataConfig(files=("a/**b",)), tmp_path)
    (tmp_path / "a.csv").write_text("speed,heat\n1,2\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"speed,heat\n1,2\n"))
    with pytest.raises(DataError, match="are the same series twice"):
        files.read(LIFE, DataConfig(files=("a.*",)), tmp_path)


def test_an_absolute_pattern_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("speed,heat\n1,2\n")
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text("speed,heat\n")
    found = files.read(LIFE, DataConfig(files=(f"{tmp_path}/*.csv",)), tmp_path / "elsewhere")
    assert [series.id for series in found.series] == [(tmp_path / "a.csv").as_posix()]
    assert [file.rows for file in found.files] == [1, 0, 0]


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("speed,heat\n1,2\n")
    (tmp_path / "b.csv").symlink_to("a.csv")
    found = files.find(("a.csv", f"{tmp_path}/a.csv", "*.csv", f"../{tmp_path.name}/a.csv"), tmp_path)
    assert found == {"a.csv": tmp_path / "a.csv"}


def test_compressing_a_log_keeps_its_series(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("speed,heat\n1,2\n")
    before = files.read(LIFE, DataConfig(files=("a.*",)), tmp_path).series[0].id
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "a.csv").unlink()
    assert files.read(LIFE, DataConfig(files=("a.*",)), tmp_path).series[0].id == before == "a.csv"


def test_class_labels_become_indices(tmp_path: Path) -> None:
    (series,) = reading(tmp_path, "speed,state\n1,worn\n2, ok\n3,2.0\n4,\n", STATE).series
    assert series.targets is not None
    assert np.array_equal(series.targets[:, 0], [1, 0, 2, np.nan], equal_nan=True)
    message = refused(tmp_path, "speed,state\n1,broken\n", STATE)
    assert "(data.target): class 'broken' is none of the task's; it knows ok, worn, 2" in message
    (series,) = reading(tmp_path, "speed,state\n1,broken\n", STATE, missing_values=("broken",)).series
    assert series.targets is not None
    assert np.isnan(series.targets).all()


def test_column_settings_that_do_not_suit_the_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.sped: the task has no such column; it has speed, heat"):
        reading(tmp_path, "1 2\n", columns={"sped": 1})
    with pytest.raises(ConfigError, match=r"data\.target: the task computes its target"):
        reading(tmp_path, "1 2\n", target=1)
    with pytest.raises(ConfigError, match=r"data\.ends: the task has no target that is remaining life"):
        reading(tmp_path, "1 2\n", STATE, ends="x.txt")


def test_true_ends_are_matched_to_the_series_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "ends.txt").write_text("7 \n8 \n9 \n")
    text = "id,speed,heat\n10,1,0\n2,2,0\n1,3,0\n"
    found = reading(tmp_path, text, series="id", ends="ends.txt", include_series=("10", "1"))
    assert {series.id: series.remaining_at_end for series in found.series} == {"1": 7, "10": 9}
    assert "3 numbers for 1 series" in refused(tmp_path, text, ends="ends.txt")
    (tmp_path / "ends.txt").write_text("7\n-8\n9\n")
    assert "below zero" in refused(tmp_path, text, series="id", ends="ends.txt")
    assert "none.txt: cannot be read" in refused(tmp_path, text, series="id", ends="none.txt")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(st.floats(-1e20, 1e20), min_size=2, max_size=2), min_size=1, max_size=20))
def test_numbers_come_back_as_they_were_written(tmp_path: Path, rows: list[list[float]]) -> None:
    text = "speed,heat\n" + "".join(f"{a!r},{b!r}\n" for a, b in rows)
    assert reading(tmp_path, text).series[0].values.tolist() == rows


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text("1,2;\t\n\"'.eE-x ", max_size=60).map(str.encode))
def test_any_file_is_read_or_refused_with_a_reason(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(DataError):
        reading(tmp_path, data, columns={"speed": 1, "heat": 2})
