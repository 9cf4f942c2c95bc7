"""What is cut off shows, and of a line that changes only the part that differs is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fieldfold.terminal.frame import keys
from fieldfold.terminal.room import key_at
from fieldfold.terminal.words import Line, Piece, cut, difference, fit_end, line, lines_of, text

PIECES: st.SearchStrategy[Piece] = st.tuples(st.text("ab ", max_size=5), st.sampled_from(["", "dim", "bad"]))
LINES = st.lists(PIECES, max_size=4).map(lambda pieces: line(*pieces))


def cells(of: Line) -> list[tuple[str, str]]:
    return [(character, role) for piece, role in of for character in piece]


@given(LINES, LINES)
def test_what_differs_is_all_that_has_to_be_drawn(before: Line, after: Line) -> None:
    first, last = difference(before, after)
    blank = [(" ", "nothing")] * 99
    was, now = (cells(each) + blank for each in (before, after))
    assert [*was[:first], *now[first:last], *was[last:99]] == now[:99]


@given(LINES)
def test_a_line_that_is_the_same_needs_nothing(same: Line) -> None:
    first, last = difference(same, same)
    assert first == last


@given(LINES, st.integers(0, 30))
def test_a_line_that_is_cut_ends_with_a_sign(of: Line, width: int) -> None:
    kept = text(cut(of, width))
    assert len(kept) <= width
    assert kept == text(of) or not width or kept.endswith("…")


def test_of_a_path_the_end_is_kept() -> None:
    assert fit_end("/plant/data/press.csv", 12) == "…a/press.csv"
    assert fit_end("press.csv", 12) == "press.csv"
    assert fit_end("press.csv", 0) == ""


ROOMS = [("o", "Overview"), ("d", "Data"), ("t", "Training"), ("n", "Network"), ("l", "Log")]
OWN = [("b", "Roll back"), ("i", "Pin"), ("w", "Export"), ("p", "Pause"), ("/", "Find")]


def test_what_can_be_done_here_is_said_before_the_names_of_the_other_screens() -> None:
    wide = "o Overview  d Data  t Training  n Network  l Log  b Roll back  i Pin  w Export  p Pause  / Find"
    assert lines_of(keys(ROOMS, OWN, 120)) == f"{wide}  ? Help  q Quit"
    assert lines_of(keys(ROOMS, OWN, 103)) == f"{wide}  ? Help"
    assert lines_of(keys(ROOMS, OWN, 80)) == (
        "o d t n l Screens  b Roll back  i Pin  w Export  p Pause  / Find  ? Help  q Quit"
    )
    assert lines_of(keys(ROOMS, OWN, 30)) == "o d t n l Screens  ? Help"


def test_a_click_on_the_footer_finds_the_key_under_it() -> None:
    said = "o d t Screens  b Roll back  ? Help"
    assert [key_at(said, column) for column in (0, 1, 2, 4, 6, 13)] == ["o", "", "d", "t", "", ""]
    assert {key_at(said, column) for column in range(15, 26)} == {"b"}
    assert key_at(said, said.index("Help")) == "?"
    assert key_at(said, 99) == ""
