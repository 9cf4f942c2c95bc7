"""The split: no row in two parts, the same at every start, and stable while series arrive."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fieldfold.sensors.split import PARTS, Segment, by_series, by_time, place, split

names = st.lists(st.text(max_size=8), unique=True, max_size=30)
fractions = st.floats(0, 0.5)


def test_a_series_goes_where_the_hash_of_its_name_says() -> None:
    places = [round(place(name), 6) for name in ("1", "2", "3", "pump A/run.csv")]
    assert places == [0.814118, 0.493161, 0.330678, 0.203796]


def test_several_series_are_split_whole() -> None:
    segments = split({str(n): 10 + n for n in range(200)}, window=5, validation_fraction=0.2, test_fraction=0.1)
    assert all(len(several) == 1 for several in segments.values())
    assert all(segments[str(n)][0].stop == 10 + n for n in range(200))
    counts = {part: sum(several[0].part == part for several in segments.values()) for part in PARTS}
    assert counts["train"] + counts["validation"] + counts["test"] == 200
    assert 25 <= counts["validation"] <= 55
    assert 10 <= counts["test"] <= 35


def test_validation_and_train_never_stay_empty() -> None:
    low, high = sorted([str(n) for n in range(100)], key=place)[:2]
    assert by_series([high, low], 0.2, 0.0) == {low: "validation", high: "train"}
    last, last_but_one = sorted([str(n) for n in range(100)], key=place, reverse=True)[:2]
    assert by_series([last, last_but_one], 0.2, 0.0) == {last_but_one: "validation", last: "train"}
    assert by_series([last, last_but_one], 0.0, 0.0) == {last_but_one: "train", last: "train"}


def test_a_single_series_is_split_by_time_with_gaps_of_a_window() -> None:
    assert by_time(1000, 30, 0.2, 0.1) == (
        Segment("train", 0, 658),
        Segment("validation", 688, 876),
        Segment("test", 906, 1000),
    )
    assert split({"a": 1000}, window=30, validation_fraction=0.2, test_fraction=0.0)["a"] == (
        Segment("train", 0, 776),
        Segment("validation", 806, 1000),
    )


@pytest.mark.parametrize("rows", [0, 5, 119])
def test_a_short_single_series_trains_whole(rows: int) -> None:
    assert by_time(rows, 40, 0.2, 0.0) == (Segment("train", 0, rows),)


@given(rows=st.integers(0, 5000), window=st.integers(1, 200), validation=fractions, test=fractions)
def test_parts_of_one_series_stand_apart_by_a_window(rows: int, window: int, validation: float, test: float) -> None:
    segments = by_time(rows, window, validation, test)
    assert segments[0].start == 0
    assert segments[-1].stop == rows
    for before, after in itertools.pairwise(segments):
        assert after.start - before.stop == window
        assert after.stop - after.start >= window
        assert before.stop - before.start >= window
    assert len({segment.part for segment in segments}) == len(segments)


@given(names=names, validation=fractions, test=fractions, order=st.randoms())
def test_the_order_of_series_does_not_matter(names: list[str], validation: float, test: float, order: Random) -> None:
    parts = by_series(names, validation, test)
    order.shuffle(names)
    assert by_series(names, validation, test) == parts
    assert set(parts) == set(names)
    if names:
        assert "train" in parts.values()
    if len(names) > 1 and validation > 0:
        assert "validation" in parts.values()


@given(before=names, arriving=names, validation=fractions, test=fractions)
def test_a_series_that_trains_never_moves_to_validation(
    before: list[str], arriving: list[str], validation: float, test: float
) -> None:
    old = by_series(before, validation, test)
    forced = not any(place(name) >= validation + test for name in before)
    assume(len(before) > 1 and not forced)
    new = by_series({*before, *arriving}, validation, test)
    assert not [name for name in before if old[name] == "train" and new[name] == "validation"]
