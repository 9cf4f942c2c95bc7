"""NPZ archives: the layouts that are read, and what a damaged or hostile one is answered with."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldfold.errors import DataError
from fieldfold.sensors import files, npz
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature, RemainingLifeTarget
from fieldfold.sensors.source import DataConfig, Reading

LIFE = DataSchema(features=(Feature("speed"), Feature("heat")), window=2, target=RemainingLifeTarget())
STATE = DataSchema(features=(Feature("speed"),), window=2, target=ColumnTarget("state", classes=("ok", "worn")))


def reading(folder: Path, schema: DataSchema = LIFE, **options: Any) -> Reading:
    return files.read(schema, DataConfig(files=("pump.npz",), **options), folder)


def refused(folder: Path, schema: DataSchema = LIFE, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        reading(folder, schema, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "DIR")


def npy(array: Any, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def write(folder: Path, **members: bytes) -> None:
    with zipfile.ZipFile(folder / "pump.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def test_one_array_a_column(tmp_path: Path) -> None:
    np.savez(tmp_path / "pump.npz", heat=np.array([10.0, np.nan]), speed=np.array([1, 2], np.int16))
    (series,) = reading(tmp_path).series
    assert repr(series.values.tolist()) == "[[1.0, 10.0], [2.0, nan]]"
    (series,) = reading(tmp_path, columns={"speed": 1, "heat": 2}).series
    assert repr(series.values.tolist()) == "[[10.0, 1.0], [nan, 2.0]]"


def test_a_table_with_names_and_further_columns(tmp_path: Path) -> None:
    data = np.asfortranarray(np.array([[10, 1], [20, 2], [30, 3]], ">f4"))
    np.savez_compressed(
        tmp_path / "pump.npz", data=data, columns=np.array(["heat", "speed"]), id=np.array([b"B", b"A", b"B"])
    )
    found = reading(tmp_path, series="id").series
    assert {series.id: series.values.tolist() for series in found} == {"A": [[2, 20]], "B": [[1, 10], [3, 30]]}


def test_a_table_without_names_is_read_by_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "pump.npz", data=np.array([[0.0, 10, 1], [0, 20, 2]]))
    (series,) = reading(tmp_path, columns={"speed": 3, "heat": 2}, order=1).series
    assert series.values.tolist() == [[1, 10], [2, 20]]
    assert "there is no header line" in refused(tmp_path)


def test_class_labels_and_series_may_be_numbers_or_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "pump.npz", speed=np.arange(2.0), state=np.array(["worn", "ok"]), id=np.array([7.0, 7.0]))
    (series,) = reading(tmp_path, STATE, series="id").series
    assert series.id == "7"
    assert series.targets is not None
    assert series.targets.tolist() == [[1], [0]]


def test_rows_may_be_ordered_by_numpy_times(tmp_path: Path) -> None:
    times = np.array(["2024-05-01T10:00:02", "2024-05-01T10:00:01"], "datetime64[ns]")
    np.savez(tmp_path / "pump.npz", speed=np.array([2, 1]), heat=np.zeros(2), t=times)
    assert reading(tmp_path, order="t").series[0].values[:, 0].tolist() == [1, 2]
    np.savez(
        tmp_path / "pump.npz", speed=np.array([2, 1]), heat=np.zeros(2), t=np.append(times[:1], np.datetime64("NaT"))
    )
    assert "'NaT' says no place in the series" in refused(tmp_path, order="t")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"speed": np.ones(2)}, "there is no column 'heat' (data.columns.heat); columns there: speed"),
        ({"speed": np.ones(2), "heat": np.ones(3)}, "its columns have 2 and 3 rows"),
        ({"speed": np.ones(2), "heat": np.array(["a", "b"])}, "column 'heat' (data.columns.heat) holds text"),
        ({"speed": np.ones(2), "heat": np.ones((2, 2))}, "has 2 dimensions, a column has one"),
        ({"speed": np.ones(2), "heat": np.ones(2, complex)}, "array heat: holds <c16, neither numbers nor text"),
        ({"data": np.ones((2, 2)), "columns": np.array(["speed"])}, "columns must be a 1-D array of 2 names"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "pump.npz", **arrays)
    assert says in refused(tmp_path)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    write(tmp_path, speed=npy(np.array([{}, []], object), pickled=True), heat=npy(np.ones(2)))
    assert "array speed: holds |O, neither numbers nor text" in refused(tmp_path)


def test_a_shape_that_its_bytes_do_not_fill_is_refused_before_allocation(tmp_path: Path) -> None:
    lie = npy(np.ones(2)).replace(b"(2,), }                  ", b"(999999999999999999,), } ")
    assert b"99999" in lie
    write(tmp_path, speed=lie, heat=npy(np.ones(2)))
    assert "DIR/pump.npz: array speed: its size does not fit its shape (999999999999999999,)" in refused(tmp_path)
    write(tmp_path, speed=npy(np.ones(2)).replace(b"(2,)", b"(8,)"), heat=npy(np.ones(2)))
    assert "its size does not fit its shape (8,)" in refused(tmp_path)


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_ARCHIVE_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "pump.npz", speed=np.zeros(1 << 20), heat=np.zeros(1 << 20))
    assert (tmp_path / "pump.npz").stat().st_size < 20_000
    assert "its arrays take more than 1048576 bytes" in refused(tmp_path)


def test_a_text_file_or_half_an_archive_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "pump.npz").write_text("speed,heat\n1,2\n")
    assert "is damaged or no NPZ file" in refused(tmp_path, format="npz")
    np.savez(tmp_path / "pump.npz", speed=np.ones(2), heat=np.ones(2))
    whole = (tmp_path / "pump.npz").read_bytes()
    (tmp_path / "pump.npz").write_bytes(whole[: len(whole) // 2])
    assert "is damaged or no NPZ file" in refused(tmp_path)
    (tmp_path / "pump.npz").write_bytes(whole.replace(np.ones(2).tobytes(), np.zeros(2).tobytes(), 1))
    assert "is damaged or no NPZ file: Bad CRC-32" in refused(tmp_path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_array_is_read_or_refused_with_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    member = bytearray(npy(np.arange(3.0)))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, 90))
        member[position] = data.draw(st.sampled_from(b"{}()[]'\",:0123456789 xbTfO<>\n\\#") | st.integers(0, 255))
    write(tmp_path, speed=bytes(member), heat=npy(np.arange(3.0)))
    with contextlib.suppress(DataError):
        reading(tmp_path)
