"""Which of two rules is in force: what the reports of ten nodes, of whom three may lie, make of it."""

from __future__ import annotations

import math

import pytest

from aggregator.fold.trial import (
    LENGTH,
    LONGER,
    MUCH_WORSE,
    SETTLING,
    SHORTEST_WAIT,
    WAIT_WITHOUT,
    Move,
    Trial,
    first_level,
    hear,
    judged,
)

NODES = tuple("abcdefghij")
LIARS = 3
LONG = 400


class Fleet:
    """Each turn all ten report a loss, one after the other, and the rule is judged once; the first loss is 1."""

    def __init__(self, liars: int = LIARS) -> None:
        self.trial, self.steps, self.undone, self.liars = Trial(), 0, 0, liars
        self.turn(1.0)

    def turn(self, honest: float, lie: float | None = None) -> Move:
        for place, node in enumerate(NODES):
            loss = lie if lie is not None and place < self.liars else honest
            self.trial = hear(self.trial, node, loss, self.steps, len(NODES))
        self.trial, move = judged(self.trial, len(NODES), self.steps)
        self.undone += move == "back"
        self.steps += 1
        return move

    def turns(self, count: int, honest: float, lie: float | None = None) -> Fleet:
        for _ in range(count):
            self.turn(honest, lie)
        return self

    def until(self, *, bold: bool, honest: float, lie: float | None = None) -> Fleet:
        for _ in range(LONG):
            if self.trial.bold == bold:
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


def test_a_fleet_is_careful_while_that_helps_and_bold_when_it_has_stopped_to() -> None:
    fleet = Fleet()
    for turn in range(4 * LENGTH):
        fleet.turn(0.99**turn)
        assert not fleet.trial.bold
    fleet.until(bold=True, honest=0.4)
    fleet.turns(LONG, 0.4)
    assert (fleet.trial.bold, fleet.undone) == (True, 0)


def test_a_jolt_that_passes_is_no_harm() -> None:
    fleet = Fleet().until(bold=True, honest=0.4)
    fleet.turns(SETTLING // 2, 0.8).turns(LONG, 0.4)
    assert (fleet.trial.bold, fleet.undone) == (True, 0)


def test_what_harms_much_is_undone_at_once() -> None:
    fleet = Fleet().until(bold=True, honest=0.4)
    began = fleet.trial.turn
    fleet.until(bold=False, honest=1.05 * MUCH_WORSE * 0.4)
    assert fleet.undone == 1
    assert fleet.trial.turn - began < SETTLING // 2


def test_harm_that_stays_is_undone_and_the_next_try_is_longer_in_coming() -> None:
    fleet = Fleet().until(bold=True, honest=0.4)
    began = fleet.trial.turn
    fleet.until(bold=False, honest=0.6)
    assert fleet.undone == 1
    assert SETTLING <= fleet.trial.turn - began < 2 * SETTLING
    assert fleet.trial.wait == LONGER * SHORTEST_WAIT
    began = fleet.trial.turn
    fleet.until(bold=True, honest=0.4)
    assert fleet.trial.turn - began >= LONGER * SHORTEST_WAIT


def test_harm_that_comes_slowly_is_harm_when_it_has_become_large() -> None:
    fleet, loss = Fleet().until(bold=True, honest=0.4), 0.4
    while fleet.trial.bold:
        loss *= 1.003
        fleet.turn(loss)
        assert loss < 0.55
    assert fleet.undone == 1


def test_three_liars_in_ten_cannot_end_the_bold_rule() -> None:
    fleet = Fleet().until(bold=True, honest=0.4, lie=0.4)
    fleet.turns(LONG, 0.4, lie=1e6)
    assert (fleet.trial.bold, fleet.undone) == (True, 0)


@pytest.mark.parametrize("lie", [0.0, 1e6])
def test_four_liars_in_ten_cannot_save_it(lie: float) -> None:
    fleet = Fleet(liars=4).until(bold=True, honest=0.4, lie=lie)
    fleet.until(bold=False, honest=0.8, lie=lie)
    assert fleet.undone == 1


def test_who_has_nothing_to_lose_is_no_witness() -> None:
    fleet = Fleet(liars=4).until(bold=True, honest=0.4, lie=2.0)
    for _ in range(SETTLING):
        fleet.turn(0.4, lie=2.0)
    for place, node in enumerate(NODES):
        fleet.trial = hear(fleet.trial, node, 0.8 if place > 7 else 0.4, fleet.steps, len(NODES))
    assert judged(fleet.trial, len(NODES), fleet.steps)[1] == "back"


def test_where_nothing_was_learned_no_harm_would_show_so_the_bold_rule_has_to_learn_something() -> None:
    fleet = Fleet().until(bold=True, honest=1.0)
    assert fleet.trial.turn >= WAIT_WITHOUT
    fleet.turns(LENGTH, 1.0)
    assert (fleet.trial.bold, fleet.undone) == (False, 1)


def test_a_bold_rule_that_has_held_for_long_is_soon_tried_again() -> None:
    fleet = Fleet().until(bold=True, honest=0.4).until(bold=False, honest=0.8)
    fleet.until(bold=True, honest=0.4).turns(LONGER**2 * fleet.trial.wait, 0.4).until(bold=False, honest=0.8)
    assert fleet.trial.wait == SHORTEST_WAIT


def test_liars_who_are_the_first_to_speak_do_not_say_what_is_much() -> None:
    fleet = Fleet()
    fleet.trial, fleet.steps = Trial(), 0
    quick = LIARS + 1
    for _ in range(2 * LENGTH):
        for node in NODES[:quick]:
            fleet.trial = hear(fleet.trial, node, 1e6, 0, quick)
        fleet.trial, _ = judged(fleet.trial, quick, 0)
    assert first_level(fleet.trial) == 1e6
    fleet.turn(1.0, lie=1e6)
    assert first_level(fleet.trial) == 1.0
    fleet.until(bold=True, honest=0.4, lie=1e6).until(bold=False, honest=0.8, lie=1e6)
    assert fleet.undone == 1


def test_who_comes_when_much_has_been_learned_does_not_say_what_is_much() -> None:
    fleet = Fleet().until(bold=True, honest=0.4)
    for newcomer in range(10 * len(NODES)):
        fleet.trial = hear(fleet.trial, f"new-{newcomer}", 0.1, fleet.steps, len(NODES))
    assert first_level(fleet.trial) == 1.0
