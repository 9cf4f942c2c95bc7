"""What the aggregator issues has numbers that only rise, whatever its clock does."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.issuer import AHEAD_MS, Issuer
from aggregator.ledger.ledger import Ledger
from tests.aggregator.tiny import FEDERATION, full_disk


@settings(max_examples=30, deadline=None)
@given(moments=st.lists(st.floats(0, 4e9), min_size=1, max_size=12), restarts=st.sets(st.integers(0, 11)))
def test_numbers_rise_over_restarts_and_a_clock_that_jumps(
    moments: list[float], restarts: set[int], tmp_path_factory: object
) -> None:
    path = Path(tmp_path_factory.mktemp("issuer")) / "ledger.sqlite"  # type: ignore[attr-defined]
    ledger, given_out = Ledger(path, FEDERATION), []
    now = iter(moments)
    issuer = Issuer(ledger, lambda: next(now))
    for turn in range(len(moments)):
        if turn in restarts:
            ledger.close()
            ledger = Ledger(path, FEDERATION)
            issuer = Issuer(ledger, lambda: next(now))
        given_out.append(issuer.next())
    ledger.close()
    assert all(one < other for one, other in itertools.pairwise(given_out))


def test_a_number_is_the_time_where_nothing_speaks_against_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", FEDERATION)
    assert Issuer(ledger, lambda: 1_800_000_000.0).next() == 1_800_000_000_000
    assert ledger.issued == 1_800_000_000_000 + AHEAD_MS
    assert Issuer(ledger, lambda: 1_900_000_000.0).next() == 1_900_000_000_000
    ledger.close()


def test_a_full_disk_does_not_hold_what_is_issued(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", FEDERATION)
    issuer = Issuer(ledger, lambda: 0.0)
    with full_disk(ledger):
        assert (issuer.next(), issuer.next()) == (1, 2)
    assert issuer.next() == 3
    ledger.close()
