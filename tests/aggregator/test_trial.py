"""Which of two rules is in force: what the reports of ten nodes, of whom three may lie, make of it."""

from __future__ import annotations

import math

import pytest

from aggregator.fold.trial import LENGTH, Trial, hear, judged

NODES = tuple("abcdefghij")
LIARS = 3
LONG = 60


class Fleet:
    """Each turn all ten report a loss, one after the other, and the rule is judged once."""

    def __init__(self) -> None:
        self.trial, self.steps, self.undone = Trial(), 0, 0

    def turns(self, count: int, honest: float, lie: float | None = None) -> Fleet:
        for _ in range(count):
            self.turn(honest, lie)
        return self

    def turn(self, honest: float, lie: float | None = None) -> None:
        for place, node in enumerate(NODES):
            loss = lie if lie is not None and place < LIARS else honest
            self.trial = hear(self.trial, node, loss, self.steps, len(NODES))
        self.trial, is_undone = judged(self.trial, len(NODES), self.steps)
        self.undone += is_undone
        self.steps += 1

    def until(self, *, bold: bool, challenging: bool, honest: float, lie: float | None = None) -> Fleet:
        for _ in range(LONG):
            if (self.trial.bold, self.trial.challenging) == (bold, challenging):
                return self
            self.turn(honest, lie)
        raise AssertionError("it never came to that")


def test_a_turn_is_over_when_more_than_half_have_spoken_however_often_others_do() -> None:
    trial = Trial()
    for node in "aaaaaaaaaabcde":
        trial = hear(trial, node, 1.0, 0, len(NODES))
    assert (trial.turn, trial.spoken) == (0, tuple("abcde"))
    trial = hear(trial, "f", 1.0, 0, len(NODES))
    assert (trial.turn, trial.spoken) == (1, ())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
def test_a_loss_that_is_none_is_no_report(loss: float) -> None:
    assert hear(Trial(), "a", loss, 0, 10).reports == {}


def test_a_fleet_begins_careful_and_keeps_the_bold_rule_when_nobody_is_worse_off() -> None:
    fleet = Fleet()
    fleet.turn(1.0)
    assert not fleet.trial.bold
    fleet.until(bold=True, challenging=True, honest=1.0)
    fleet.until(bold=True, challenging=False, honest=1.0)
    assert fleet.undone == 0


def test_a_trial_that_makes_most_much_worse_is_undone_at_once_and_waits_twice_as_long() -> None:
    fleet = Fleet().until(bold=True, challenging=True, honest=1.0)
    wait, began = fleet.trial.wait, fleet.trial.turn
    fleet.until(bold=False, challenging=False, honest=2.0)
    assert fleet.undone == 1
    assert fleet.trial.turn - began < LENGTH
    assert fleet.trial.wait == 2 * wait


def test_slow_harm_ends_a_trial_when_its_time_is_over() -> None:
    fleet = Fleet().until(bold=True, challenging=True, honest=1.0)
    fleet.until(bold=False, challenging=False, honest=1.25)
    assert fleet.undone == 1


def test_three_liars_in_ten_can_neither_break_off_a_trial_nor_save_one() -> None:
    harmless = Fleet().until(bold=True, challenging=True, honest=1.0, lie=1.0)
    harmless.until(bold=True, challenging=False, honest=1.0, lie=1e6)
    assert harmless.undone == 0
    harmful = Fleet().until(bold=True, challenging=True, honest=1.0, lie=0.0)
    harmful.until(bold=False, challenging=False, honest=2.0, lie=0.0)
    assert harmful.undone == 1


def test_the_careful_rule_takes_over_where_many_gain_by_it() -> None:
    fleet = Fleet().until(bold=True, challenging=True, honest=1.0)
    fleet.until(bold=True, challenging=False, honest=1.0).until(bold=False, challenging=True, honest=1.0)
    fleet.until(bold=False, challenging=False, honest=0.5)


def test_the_careful_rule_gives_way_again_where_nobody_gains() -> None:
    fleet = Fleet().until(bold=True, challenging=True, honest=1.0)
    fleet.until(bold=True, challenging=False, honest=1.0).until(bold=False, challenging=True, honest=1.0)
    wait = fleet.trial.wait
    fleet.until(bold=True, challenging=False, honest=1.0)
    assert fleet.trial.wait == 2 * wait


def test_a_bold_champion_falls_when_most_are_much_worse_than_they_were() -> None:
    fleet = Fleet().until(bold=True, challenging=True, honest=1.0)
    fleet.until(bold=True, challenging=False, honest=1.0).turns(2, 1.0)
    fleet.until(bold=False, challenging=False, honest=2.0)
    assert fleet.undone == 0
