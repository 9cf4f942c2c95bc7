"""What is counted today begins at midnight by the box's own calendar, or with the daemon."""

from __future__ import annotations

import time

from node_app.day import Counts, Day

NOON = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
DAY_S = 24 * 3600.0
BEFORE = Counts(accepted=40, rejected=1, bytes_up=1000)
LATER = Counts(accepted=41, rejected=1, bytes_up=1600, float32=90_000, reconnects=1)


def test_on_the_first_day_it_begins_with_the_daemon() -> None:
    day = Day(BEFORE, NOON)
    day.look(LATER, NOON + 3600)
    assert (day.since_s, LATER.since(day.began)) == (
        NOON,
        Counts(accepted=1, bytes_up=600, float32=90_000, reconnects=1),
    )


def test_at_midnight_it_begins_anew() -> None:
    day = Day(BEFORE, NOON)
    day.look(LATER, NOON + DAY_S / 2 + 1)
    assert day.since_s == NOON + DAY_S / 2 + 1
    assert LATER.since(day.began) == Counts()
