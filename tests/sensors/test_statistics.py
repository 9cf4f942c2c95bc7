"""Sums of the nodes merge to the statistics of their pooled data; sums that no data can have are refused."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fieldfold.errors import DataError
from fieldfold.sensors.statistics import (
    LIMIT,
    FeatureSums,
    Normalisation,
    check,
    merge,
    normalisation,
    sums_of,
)

tables = arrays(np.float64, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(-1e6, 1e6))


def test_sums_leave_missing_values_out() -> None:
    sums = sums_of([np.array([[1.0, np.nan], [2, 10]]), np.array([[3.0, np.nan]])], 2)
    assert sums == FeatureSums((3, 1), (6, 10), (14, 100))


@given(mine=tables, theirs=tables)
def test_merged_sums_are_those_of_the_pooled_rows(mine: np.ndarray, theirs: np.ndarray) -> None:
    merged = merge(sums_of([mine], 3), sums_of([theirs], 3))
    check(merged, 3)
    pooled = np.concatenate([mine, theirs])
    assert set(merged.count) == {float(len(pooled))}
    assert np.allclose(merged.total, pooled.sum(axis=0), rtol=1e-9, atol=1e-6)
    assert np.allclose(merged.total_of_squares, np.square(pooled).sum(axis=0), rtol=1e-9, atol=1e-6)


def test_a_sensor_with_a_large_offset_keeps_its_spread() -> None:
    values = np.random.default_rng(0).normal(9046.0, 20.0, (200_000, 1))
    found = normalisation(sums_of(np.split(values, 50), 1))
    assert found.mean[0] == pytest.approx(values.mean(), rel=1e-12)
    assert found.std[0] == pytest.approx(values.std(), rel=1e-8)


def test_a_constant_or_unseen_feature_has_std_one() -> None:
    values = np.column_stack([np.full(100_000, 518.67), np.zeros(100_000), np.full(100_000, np.nan)])
    sums = sums_of([values], 3)
    for _ in range(10):
        sums = merge(sums, sums)
    assert normalisation(sums).std == (1, 1, 1)
    assert normalisation(sums).mean == pytest.approx((518.67, 0, 0))


@given(values=tables)
def test_normalised_data_has_mean_zero_and_std_one_or_is_constant(values: np.ndarray) -> None:
    found = normalisation(sums_of([values], 3))
    scaled = found.apply(values)
    assert scaled.dtype == np.float32
    assert np.isfinite(scaled).all()
    for feature in range(3):
        if found.std[feature] != 1:
            assert abs(scaled[:, feature].mean(dtype=np.float64)) < 1e-2
            assert scaled[:, feature].std(dtype=np.float64) == pytest.approx(1, abs=1e-2)


def test_normalising_keeps_missing_values_and_stays_finite_in_float32() -> None:
    found = Normalisation((0.0, 1.0), (1e-300, 2.0)).apply(np.array([[1e30, 5.0], [np.nan, -3]]))
    assert found[0].tolist() == [LIMIT, 2]
    assert math.isnan(found[1, 0])
    assert np.isfinite(np.square(found[0])).all()
    raw = np.array([[1.5, -2.0]])
    assert np.array_equal(Normalisation.identity(2).apply(raw), raw)


def test_both_travel_as_json() -> None:
    sums = sums_of([np.array([[1.0, 0.1]])], 2)
    assert msgspec.json.decode(msgspec.json.encode(sums), type=FeatureSums) == sums
    found = normalisation(sums)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Normalisation) == found


@pytest.mark.parametrize(
    ("sums", "says"),
    [
        (FeatureSums((1,), (1,), (1,)), "sums of [1] features, the task has 2"),
        (FeatureSums((1, 1), (1, 1), (1,)), "sums of [1, 2] features, the task has 2"),
        (FeatureSums((1, 1), (1, math.nan), (1, 1)), "sums of feature 2: not finite"),
        (FeatureSums((1, 1), (1, 1), (1, math.inf)), "sums of feature 2: not finite"),
        (FeatureSums((1, -1), (1, 1), (1, 1)), "sums of feature 2: -1 is not a number of rows"),
        (FeatureSums((1, 1.5), (1, 1), (1, 1)), "sums of feature 2: 1.5 is not a number of rows"),
        (FeatureSums((1, 1e300), (1, 1), (1, 1)), "sums of feature 2: 1e+300 is not a number of rows"),
        (FeatureSums((1, 0), (1, 1), (1, 1)), "sums of feature 2: too large for that many rows"),
        (FeatureSums((1, 1), (1, 1), (1, -1)), "sums of feature 2: too large for that many rows"),
        (FeatureSums((1, 1), (1, 1e300), (1, 1e307)), "sums of feature 2: too large for that many rows"),
        (FeatureSums((1, 2), (1, 10), (1, 40)), "sums of feature 2: the sum of squares is too small"),
    ],
)
def test_sums_that_no_data_can_have_are_refused(sums: FeatureSums, says: str) -> None:
    with pytest.raises(DataError) as caught:
        check(sums, 2)
    assert str(caught.value).startswith(says)


@given(st.lists(st.tuples(*[st.floats(width=64)] * 3), min_size=1, max_size=4))
def test_whatever_passes_the_check_gives_a_sound_normalisation(rows: list[tuple[float, float, float]]) -> None:
    sums = FeatureSums(*(tuple(column) for column in zip(*rows, strict=True)))
    try:
        check(sums, len(rows))
    except DataError:
        return
    normalisation(merge(sums, sums))


def test_faults_of_a_normalisation() -> None:
    for mean, std in (((0.0,), ()), ((math.inf,), (1.0,)), ((0.0,), (0.0,)), ((0.0,), (-1.0,))):
        with pytest.raises(DataError, match="one finite mean and one positive std"):
            Normalisation(mean, std)
    with pytest.raises(DataError, match="is for 2 features, the data has 3"):
        Normalisation.identity(2).apply(np.zeros((1, 3)))
    with pytest.raises(DataError, match="cannot be merged"):
        merge(FeatureSums((1,), (1,), (1,)), FeatureSums((), (), ()))
