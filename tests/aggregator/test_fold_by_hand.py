"""Each method against a case that was worked out on paper."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from aggregator.fold.ace import ACE
from aggregator.fold.ca2fl import CA2FL
from aggregator.fold.contribution import Contribution, Method, Step
from aggregator.fold.deadline import Deadline
from aggregator.fold.fadas import FADAS
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.ringmaster import Ringmaster
from aggregator.fold.server_optimizers import Sgd
from aggregator.fold.slots import Slots
from aggregator.fold.staleness import constant, hinge, polynomial
from fieldfold.params import as_vector
from tests.aggregator.tiny import NUM_PARAMS, contribution

A, B = (1.0, 0.0, 0.0), (0.0, 2.0, 0.0)


def steps(method: Method, *arrivals: Contribution) -> list[Step | None]:
    """What a method does at each arrival, from its beginning."""
    state = method.init()
    taken = []
    for arrival in arrivals:
        state, step = method.fold(state, arrival, NUM_PARAMS)
        taken.append(step)
    return taken


def assert_moves(step: Step | None, *update: float) -> None:
    assert step is not None
    assert step.update.dtype == np.float32
    assert step.update.tolist() == pytest.approx(update, rel=1e-6)


def test_staleness_weights() -> None:
    assert [constant(tau) for tau in (0, 9)] == [1, 1]
    assert [hinge(tau, a=10, b=4) for tau in (0, 4, 5, 6)] == [1, 1, 1 / 11, 1 / 21]
    assert [polynomial(tau, a=0.5) for tau in (0, 3, 8)] == [1, 1 / 2, pytest.approx(1 / 3)]


class TestFedAvg:
    def test_weighs_a_round_by_examples(self) -> None:
        method = FedAvg(clients_per_round=2, server_learning_rate=0.5)
        first, second = steps(
            method, contribution("a", *A, num_examples=300), contribution("b", *B, num_examples=100)
        )
        assert first is None
        assert_moves(second, 0.5 * 0.75 * 1, 0.5 * 0.25 * 2, 0)
        assert second is not None
        assert second.weights == {"a": 0.75, "b": 0.25}

    def test_takes_the_later_of_two_answers_and_begins_the_next_round_empty(self) -> None:
        method = FedAvg(clients_per_round=2)
        taken = steps(method, *(contribution(node, *delta) for node, delta in (("a", B), ("a", A), ("b", B))))
        assert taken[:2] == [None, None]
        assert_moves(taken[2], 0.5, 1, 0)
        assert steps(method, *[contribution("a", *A)] * 5) == [None] * 5

    def test_leaves_out_who_is_too_late_for_the_round(self) -> None:
        method = FedAvg(clients_per_round=2)
        taken = steps(
            method, contribution("a", *A), contribution("late", 9, 9, 9, staleness=1), contribution("b", *B)
        )
        assert taken[1] is None
        assert_moves(taken[2], 0.5, 1, 0)

    def test_refuses_what_is_not_of_the_newest_version(self) -> None:
        assert FedAvg(clients_per_round=2).max_staleness == 0


class TestFedAsync:
    def test_mixes_the_node_s_model_into_the_present_one(self) -> None:
        # x = 5, x_base = 3, y = 3 + 4 = 7: (1 - .6/2) 5 + .6/2 7 = 5 + .3 (7 - 5)
        method = FedAsync(alpha=0.6, staleness="polynomial", a=0.5)
        [step] = steps(method, contribution("a", 4, 0, 0, staleness=3, drift=as_vector([2, 0, 0])))
        assert_moves(step, 0.3 * (7 - 5), 0, 0)
        assert step is not None
        assert step.weights == {"a": pytest.approx(0.3)}

    def test_hinge_and_constant(self) -> None:
        arrival = contribution("a", *A, staleness=5, drift=as_vector([0, 0, 0]))
        assert_moves(steps(FedAsync(alpha=0.5, staleness="hinge", a=10, b=4), arrival)[0], 0.5 / 11, 0, 0)
        assert_moves(steps(FedAsync(alpha=0.5, staleness="constant"), arrival)[0], 0.5, 0, 0)


class TestFedBuff:
    def test_steps_by_the_mean_of_k_arrivals_weighted_by_staleness(self) -> None:
        method = FedBuff(buffer_size=2, server_learning_rate=2.0)
        first, second, third = steps(
            method, contribution("a", *A), contribution("b", *B, staleness=3), contribution("a", *A)
        )
        assert first is None
        assert third is None
        assert_moves(second, 2 * 0.5 * 1, 2 * 0.5 * 0.5 * 2, 0)
        assert second is not None
        assert second.weights == {"a": 0.5, "b": 0.25}

    def test_counts_every_arrival_of_the_same_node(self) -> None:
        _, step = steps(FedBuff(buffer_size=2), contribution("a", *A), contribution("a", *B))
        assert_moves(step, 0.5, 1, 0)
        assert step is not None
        assert step.weights == {"a": 1.0}


class TestRateCorrectedFedBuff:
    def test_waits_for_distinct_nodes_and_keeps_the_later_delta_of_each(self) -> None:
        method = RateCorrectedFedBuff(buffer_size=2, server_learning_rate=1, clip_factor=1000)
        taken = steps(method, *(contribution(node, *delta) for node, delta in zip("abba", (A, A, B, A), strict=True)))
        assert_moves(taken[0], *A)  # nobody else is known yet
        assert taken[1:3] == [None, None]
        assert taken[3] is not None
        assert set(taken[3].weights) == {"a", "b"}
        assert taken[3].update[0] == pytest.approx(taken[3].weights["a"] * A[0])
        assert taken[3].update[1] == pytest.approx(taken[3].weights["b"] * B[1])

    def test_weighs_by_pace(self) -> None:
        # Arrivals 1 to 9. T_a = T_b = .7 x 2 + .3 x 3 = 2.3 after arrivals 8 and 7, T_c = 9 - 6 = 3:
        # r_c = 3 x (2 / 2.3 + 1 / 3) / 3, and r_a = 2.3 x (2 / 2.3) / 2 = 1, T_c being unknown at arrival 8.
        method = RateCorrectedFedBuff(buffer_size=2, server_learning_rate=1, clip_factor=1000)
        last = steps(method, *(contribution(node, *A) for node in "ababacbac"))[-1]
        assert last is not None
        assert last.weights == {"a": pytest.approx(1 / 2), "c": pytest.approx((2 / 2.3 + 1 / 3) / 2)}

    def test_never_weighs_more_than_max_rate(self) -> None:
        method = RateCorrectedFedBuff(buffer_size=2, server_learning_rate=1, clip_factor=1000, max_rate=1.1)
        last = steps(method, *(contribution(node, *A) for node in "ababacbac"))[-1]
        assert last is not None
        assert last.weights["c"] == pytest.approx(1.1 / 2)

    def test_a_delta_that_replaces_a_waiting_one_does_not_make_its_node_faster(self) -> None:
        method = RateCorrectedFedBuff(buffer_size=2, server_learning_rate=1, clip_factor=1000)
        once = steps(method, *(contribution(node, *A) for node in "abaabba"))[-1]
        often = steps(method, *(contribution(node, *A) for node in "abbbbaaaaabbbbbba"))[-1]
        assert once is not None
        assert often is not None
        assert once.weights == often.weights

    def test_with_q_a_higher_loss_weighs_more_up_to_four_times(self) -> None:
        method = RateCorrectedFedBuff(buffer_size=2, server_learning_rate=1, clip_factor=1000, q=2)
        told = [msgspec.structs.replace(contribution(node, *A), loss=loss) for node, loss in (("a", 1), ("b", 3))]
        step = steps(method, *told, *told)[2]
        assert step is not None
        # At the third arrival, b's was weighed with the mean of 1 and 3, and so is a's.
        assert step.weights == {"a": pytest.approx((1 / 2) ** 2 / 2), "b": pytest.approx((3 / 2) ** 2 / 2)}
        silent = [contribution(node, *A) for node in "ab"]
        assert steps(method, *silent, *silent)[2].weights == {"a": 0.5, "b": 0.5}  # type: ignore[union-attr]

    def test_scales_down_what_is_much_longer_than_the_recent_ones(self) -> None:
        method = RateCorrectedFedBuff(buffer_size=1, server_learning_rate=1, clip_factor=3)
        taken = steps(method, *(contribution("a", *A) for _ in range(5)), contribution("a", 0, 60, 0))
        assert_moves(taken[4], *A)
        assert_moves(taken[5], 0, 3, 0)

    def test_without_a_buffer_size_takes_a_third_of_the_active_nodes(self) -> None:
        method = RateCorrectedFedBuff()
        nodes = [f"n{index}" for index in range(9)]
        third_turn = steps(method, *(contribution(node, *A) for _ in range(3) for node in nodes))[18:]
        assert [len(step.weights) for step in third_turn if step is not None] == [3, 3, 3]

    @pytest.mark.parametrize(("nodes", "wanted"), [(1, 1), (2, 2), (3, 2)])
    def test_but_never_only_one_where_there_are_two(self, nodes: int, wanted: int) -> None:
        turns = [contribution(f"n{turn % nodes}", *A) for turn in range(12)]
        taken = steps(RateCorrectedFedBuff(), *turns)[6:]
        assert {len(step.weights) for step in taken if step is not None} == {wanted}


class TestCA2FL:
    def test_adds_the_news_of_the_buffer_to_the_mean_of_what_all_said_last(self) -> None:
        method = CA2FL(buffer_size=2, server_learning_rate=0.5)
        first = (contribution("a", 1, 0, 0), contribution("b", 0, 2, 0))
        second = (contribution("a", 3, 0, 0), contribution("c", 0, 0, 4))
        taken = steps(method, *first, *second)
        # Nobody was heard before: v = 0 + (a + b) / 2.
        assert_moves(taken[1], 0.5 * 0.5, 0.5 * 1, 0)
        # h = (1, 2, 0) / 2; v = h + ((3 - 1, 0, 0) + (0, 0, 4)) / 2 = (.5 + 1, 1, 2).
        assert_moves(taken[3], 0.5 * 1.5, 0.5 * 1, 0.5 * 2)

    def test_a_node_that_speaks_twice_in_a_buffer_brings_news_of_its_own_last_word(self) -> None:
        taken = steps(CA2FL(buffer_size=2), contribution("a", 1, 0, 0), contribution("a", 3, 0, 0))
        # From nothing to 1, and from 1 to 3: the mean of 1 and 2.
        assert_moves(taken[1], 1.5, 0, 0)


class TestACE:
    def test_steps_at_every_arrival_by_the_mean_of_what_all_said_last(self) -> None:
        taken = steps(
            ACE(server_learning_rate=0.5),
            *(contribution(node, *delta) for node, delta in (("a", A), ("b", B), ("a", (5.0, 0.0, 0.0)))),
        )
        assert_moves(taken[0], 0.5 * 1, 0, 0)
        assert_moves(taken[1], 0.5 * 0.5, 0.5 * 1, 0)
        assert_moves(taken[2], 0.5 * 2.5, 0.5 * 1, 0)
        assert taken[2] is not None
        assert taken[2].weights == {"a": 0.5, "b": 0.5}

    def test_may_wait_for_several_arrivals_and_for_enough_nodes(self) -> None:
        taken = steps(ACE(buffer_size=2, start=3), *(contribution(node, *A) for node in "aababcab"))
        assert [step is not None for step in taken] == [False] * 5 + [True, False, True]


class TestFADAS:
    def test_slows_down_when_a_buffer_holds_what_is_too_late(self) -> None:
        method = FADAS(buffer_size=2, server_learning_rate=1.0, tau_c=2, optimizer=Sgd())
        assert [method.rate(staleness) for staleness in (0, 2, 3, 10)] == [1, 1, 1 / 3, 1 / 10]
        taken = steps(
            method, *(contribution("a", *A, staleness=tau) for tau in (2, 0, 4, 0)), *[contribution("a", *A)] * 2
        )
        assert_moves(taken[1], 1, 0, 0)
        assert_moves(taken[3], 1 / 4, 0, 0)
        assert_moves(taken[5], 1, 0, 0)

    def test_divides_by_the_largest_second_moment_so_far(self) -> None:
        # m = .1 g, v = .01 g^2 after one step; then g = 0: m = .09, v stays at the larger .01.
        taken = steps(
            FADAS(buffer_size=1, server_learning_rate=0.5), contribution("a", *A), contribution("a", 0, 0, 0)
        )
        assert_moves(taken[0], 0.5 * 0.1 / (0.1 + 1e-3), 0, 0)
        assert_moves(taken[1], 0.5 * 0.09 / (0.1 + 1e-3), 0, 0)


class TestRingmaster:
    def test_steps_at_once_and_ignores_what_is_at_the_threshold(self) -> None:
        method = Ringmaster(delay_threshold=3, server_learning_rate=0.5)
        taken = steps(method, *(contribution("a", *A, staleness=tau) for tau in (0, 2, 3)))
        assert_moves(taken[0], 0.5, 0, 0)
        assert_moves(taken[1], 0.5, 0, 0)
        assert taken[2] is None
        assert method.max_staleness == 2


class TestDeadline:
    def test_a_round_is_over_when_its_nodes_have_answered_often_enough(self) -> None:
        # Two nodes, and 1 + 1/2 answers each in the mean: at the third answer. One alone must wait for its second.
        taken = steps(
            Deadline(laps=0.5), *(contribution(node, *delta) for node, delta in (("a", B), ("b", B), ("a", A)))
        )
        assert taken[:2] == [None, None]
        assert_moves(taken[2], 0.5, 1, 0)

    def test_late_answers_are_kept_and_lighter_or_dropped(self) -> None:
        arrivals = contribution("a", *A), contribution("b", *B, staleness=3), contribution("a", *A)
        assert_moves(steps(Deadline(laps=0.5), *arrivals)[2], 0.5, 0.5 * 0.5 * 2, 0)
        dropped = Deadline(laps=0.5, late="dropped")
        assert_moves(steps(dropped, *arrivals)[2], *A)
        assert (dropped.max_staleness, Deadline().max_staleness) == (0, None)


class TestSlots:
    STILL = as_vector([0, 0, 0])

    def test_steps_by_the_mean_of_all_slots_when_enough_have_spoken(self) -> None:
        taken = steps(
            Slots(turns=1, start=2, server_learning_rate=0.5),
            *(contribution(node, *delta, drift=self.STILL) for node, delta in (("a", A), ("b", B))),
        )
        assert taken[0] is None
        assert_moves(taken[1], 0.5 * 0.5, 0.5 * 1, 0)

    def test_a_slot_fades_as_the_model_walks_along_it(self) -> None:
        # After the first step b has walked half of its own direction, which is the whole budget; a speaks anew.
        again = contribution("a", *A, drift=self.STILL)
        taken = steps(
            Slots(turns=0.5, start=2, budget=0.5, server_learning_rate=1),
            contribution("a", *A, drift=self.STILL),
            contribution("b", *B, drift=self.STILL),
            again,
        )
        assert_moves(taken[1], 0.5, 1, 0)
        assert_moves(taken[2], 0.5, 0, 0)
        assert taken[2] is not None
        assert taken[2].weights == {"a": 0.5}

    def test_what_the_model_walked_while_a_delta_was_made_counts_too(self) -> None:
        late = contribution("a", *A, staleness=1, drift=as_vector([0.25, 9, 0]))
        assert_moves(steps(Slots(budget=0.5, server_learning_rate=1), late)[0], 0.5, 0, 0)

    def test_a_late_delta_may_be_as_long_as_was_usual_at_its_base(self) -> None:
        # The first step is of norms 8 and 8. Then a and b say 1, and c, whose base is the version of that step, 20:
        # it counts 2 x 8 long, in a mean of three.
        said = [("a", (8, 0, 0)), ("b", (8, 0, 0)), ("c", (0, 20, 0)), ("a", (1, 0, 0)), ("b", (1, 0, 0))]
        method = Slots(turns=1, start=2, clip_factor=2, budget=1e9, server_learning_rate=1)
        taken = steps(method, *(contribution(node, *delta, drift=self.STILL) for node, delta in said))
        assert_moves(taken[1], 8, 0, 0)
        assert_moves(taken[4], 2 / 3, 16 / 3, 0)

    def test_who_sends_fast_makes_nobody_forgotten(self) -> None:
        method = Slots(turns=0.5, start=2)
        fast = [contribution("a", *A, drift=self.STILL)] * 2000
        state = method.init()
        for arrival in (contribution("b", *B, drift=self.STILL), contribution("c", *B, drift=self.STILL), *fast):
            state, _ = method.fold(state, arrival, NUM_PARAMS)
        assert set(state.slots) == {"a", "b", "c"}

    def test_those_who_are_awake_go_on_while_most_sleep(self) -> None:
        everybody = [contribution(node, *A, drift=self.STILL) for node in "abcdefghij"]
        awake = [contribution("a", *A, drift=self.STILL)] * 40
        taken = steps(Slots(turns=0.5, start=10), *everybody, *awake)
        assert [place for place, step in enumerate(taken) if step] == [9, 49]
