"""Windows: which there are, what their targets are, and how they are handed out."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfold.errors import DataError
from fieldfold.sensors.schema import (
    ColumnTarget,
    DataSchema,
    Feature,
    InputTarget,
    LabelsTarget,
    RemainingLifeTarget,
)
from fieldfold.sensors.source import Series
from fieldfold.sensors.split import Segment
from fieldfold.sensors.windows import MISSING_TARGET, MISSING_VALUE, Windows, cut, origins, target_rows

LIFE = DataSchema(features=(Feature("a"), Feature("b")), window=3, target=RemainingLifeTarget(cap=4, scale=2))
LEVEL = DataSchema(features=(Feature("a"),), window=2, target=ColumnTarget("level", scale=10))
STATE = DataSchema(features=(Feature("a"),), window=2, target=ColumnTarget("state", classes=("ok", "worn")))


def ramp(rows: int, features: int = 2, **fields: Any) -> Series:
    return Series("engine", np.arange(rows * features, dtype=np.float64).reshape(rows, features), **fields)


def windows(series: Series, schema: DataSchema, *, start: int = 0, stop: int | None = None) -> Windows:
    stop = len(series.values) if stop is None else stop
    found = cut(series, Segment("train", start, stop), schema)
    return Windows(series.values, target_rows(series, schema), found.starts, schema.window, origins(schema))


def test_a_window_is_consecutive_rows_and_its_target_the_capped_and_scaled_life_after_its_last() -> None:
    batch = windows(ramp(8), LIFE).all()
    assert batch["x"].shape == (6, 3, 2)
    assert batch["x"].dtype == batch["y"].dtype == np.float32
    assert batch["x"][1].tolist() == [[2, 3], [4, 5], [6, 7]]
    assert batch["y"].tolist() == [[2], [2], [1.5], [1], [0.5], [0]]


def test_life_that_remains_after_the_last_row_is_added() -> None:
    assert windows(ramp(4, remaining_at_end=1), LIFE).all()["y"].tolist() == [[1], [0.5]]


def test_stride_and_segment_choose_the_windows_but_life_counts_to_the_end_of_the_series() -> None:
    schema = DataSchema(features=LIFE.features, window=3, stride=2, target=RemainingLifeTarget())
    found = windows(ramp(12), schema, start=2, stop=9)
    assert found.starts.tolist() == [2, 4, 6]
    assert found.all()["y"][:, 0].tolist() == [7, 5, 3]


def test_the_last_window_ends_with_the_segment() -> None:
    found = cut(ramp(8), Segment("test", 0, 8), LIFE, last_only=True)
    assert found.starts.tolist() == [5]


def test_windows_with_a_missing_value_or_target_are_dropped_and_counted() -> None:
    series = ramp(8, 1, targets=np.array([[0.0], [10], [20], [30], [np.nan], [50], [60], [70]]))
    series.values[1, 0] = np.nan
    found = cut(series, Segment("train", 0, 8), LEVEL)
    assert found.dropped == {MISSING_VALUE: 2, MISSING_TARGET: 1}
    assert found.starts.tolist() == [2, 4, 5, 6]
    assert windows(series, LEVEL).all()["y"].tolist() == [[3], [5], [6], [7]]


def test_a_segment_shorter_than_a_window_gives_none() -> None:
    found = windows(ramp(2), LIFE)
    assert len(found) == 0
    assert found.all()["x"].shape == (0, 3, 2)
    assert found.all()["y"].shape == (0, 1)


def test_classes_are_int64_indices() -> None:
    batch = windows(ramp(4, 1, targets=np.array([[0.0], [1], [np.nan], [0]])), STATE).all()
    assert batch["y"].dtype == np.int64
    assert batch["y"].tolist() == [1, 0]


def test_a_column_target_needs_its_column() -> None:
    with pytest.raises(DataError, match=r"series engine: has no target; set data\.target"):
        windows(ramp(4, 1), STATE)


def test_a_batch_is_the_callers_own() -> None:
    found = windows(ramp(8), LIFE)
    batch = found.batch(np.array([4, 0]))
    batch["x"][:] = -1
    batch["y"][:] = -1
    assert found.batch(np.array([4, 0]))["x"][:, 0, 0].tolist() == [8, 0]
    assert found.targets[6] == 0.5


def test_an_epoch_hands_out_every_window_once_in_an_order_of_the_seed() -> None:
    found = windows(ramp(22), LIFE)

    def firsts(seed: int, *, keep_short: bool) -> list[list[float]]:
        rng = np.random.default_rng(seed)
        return [batch["x"][:, 0, 0].tolist() for batch in found.epoch(8, rng, keep_short=keep_short)]

    assert [len(batch) for batch in firsts(1, keep_short=False)] == [8, 8]
    assert [len(batch) for batch in firsts(1, keep_short=True)] == [8, 8, 4]
    assert firsts(1, keep_short=True) == firsts(1, keep_short=True) != firsts(2, keep_short=True)
    assert sorted(chain.from_iterable(firsts(1, keep_short=True))) == found.rows[:20, 0].tolist()


def test_batches_go_on_over_epochs_and_shuffle_each() -> None:
    found = windows(ramp(10), LIFE)
    drawn = [batch["x"][:, 0, 0].tolist() for batch in islice(found.batches(8, np.random.default_rng(0)), 5)]
    assert len(drawn) == 5
    assert drawn[0] != drawn[1]
    assert all(sorted(batch) == found.rows[:8, 0].tolist() for batch in drawn)
    with pytest.raises(DataError, match="gives 8 windows to train on, a batch of this task needs 9"):
        next(found.batches(9, np.random.default_rng(0)))
    assert len(next(found.batches(9, np.random.default_rng(0), keep_short=True))["x"]) == 8


def test_chunks_cover_all_in_order_and_thinning_keeps_the_ends() -> None:
    found = windows(ramp(22), LIFE)
    assert [len(chunk["y"]) for chunk in found.chunks(8)] == [8, 8, 4]
    assert np.array_equal(np.concatenate([chunk["x"] for chunk in found.chunks(8)]), found.all()["x"])
    assert found.thinned(3).starts.tolist() == [0, 10, 19]
    assert found.thinned(20) is found


@given(
    rows=st.integers(0, 60),
    window=st.integers(1, 12),
    stride=st.integers(1, 9),
    holes=st.sets(st.integers(0, 59), max_size=6),
)
def test_every_window_without_a_hole_is_there(rows: int, window: int, stride: int, holes: set[int]) -> None:
    schema = DataSchema(features=(Feature("a"),), window=window, stride=stride, target=RemainingLifeTarget())
    series = ramp(rows, 1)
    series.values[[hole for hole in holes if hole < rows]] = np.nan
    found = cut(series, Segment("train", 0, rows), schema)
    possible = range(0, rows - window + 1, stride)
    assert found.starts.tolist() == [start for start in possible if not holes & set(range(start, start + window))]
    assert sum(found.dropped.values()) == len(possible) - len(found.starts)
    targets = windows(series, schema).all()["y"][:, 0].tolist()
    assert targets == [min(rows - window - start, 125) for start in found.starts.tolist()]


def test_every_array_of_a_batch_comes_from_its_own_columns() -> None:
    schema = DataSchema(
        features=(Feature("a"), Feature("tool", categories=("drill", "mill")), Feature("b")),
        window=2,
        target=(
            ColumnTarget("level", scale=10, offset=5, per_step=True),
            InputTarget(),
            LabelsTarget(("leak", "jam")),
            RemainingLifeTarget(),
            ColumnTarget("state", classes=("ok", "worn"), per_step=True),
        ),
    )
    values = np.array([[1.0, 0, 10], [2, 1, 20], [3, 1, 30]])
    targets = np.array([[15.0, 0, 1, 0], [25, 1, 1, 1], [35, 0, 0, 1]])
    batch = windows(Series("press", values, targets), schema).all()
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "x": "float32",
        "c": "int64",
        "y_0": "float32",
        "y_1": "float32",
        "y_2": "float32",
        "y_3": "float32",
        "y_4": "int64",
    }
    assert {name: array.tolist() for name, array in batch.items()} == {
        "x": [[[1, 10], [2, 20]], [[2, 20], [3, 30]]],
        "c": [[[0], [1]], [[1], [1]]],
        "y_0": [[[1], [2]], [[2], [3]]],
        "y_1": [[[1, 10], [2, 20]], [[2, 20], [3, 30]]],
        "y_2": [[1, 1], [0, 0]],
        "y_3": [[1], [0]],
        "y_4": [[0, 1], [1, 1]],
    }
    assert not np.shares_memory(batch["x"], batch["y_1"])


def test_a_target_per_step_must_be_known_in_every_row_of_the_window() -> None:
    targets = np.array([[1.0], [np.nan], [3], [4], [5]])
    every = DataSchema(LEVEL.features, 2, ColumnTarget("level", per_step=True))
    assert windows(ramp(5, 1, targets=targets), every).starts.tolist() == [2, 3]
    assert windows(ramp(5, 1, targets=targets), LEVEL).starts.tolist() == [1, 2, 3]


def test_a_window_of_one_row_is_the_row() -> None:
    schema = DataSchema(LIFE.features, 1, InputTarget())
    batch = windows(ramp(3), schema).all()
    assert batch["x"].tolist() == batch["y"].tolist() == [[0, 1], [2, 3], [4, 5]]
