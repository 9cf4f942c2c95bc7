"""What must hold for every method, whatever arrives."""

from __future__ import annotations

import math
from itertools import permutations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.fold.ace import ACE
from aggregator.fold.ca2fl import CA2FL
from aggregator.fold.contribution import Contribution, Method, Step
from aggregator.fold.deadline import Deadline
from aggregator.fold.fadas import FADAS
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.refereed import Refereed
from aggregator.fold.ringmaster import Ringmaster
from aggregator.fold.rules.centered_clipping import CenteredClipping
from aggregator.fold.rules.coordinate_wise import CoordinateMedian, TrimmedMean
from aggregator.fold.rules.geometric_median import GeometricMedian
from aggregator.fold.rules.krum import Krum
from aggregator.fold.rules.mixed_median import MixedMedian
from aggregator.fold.server_optimizers import Momentum, Sgd, Yogi
from aggregator.fold.slots import Slots
from aggregator.fold.staleness import hinge, polynomial
from fieldfold.params import Vector, norm
from tests.aggregator.tiny import FIRST, NUM_PARAMS, contribution

METHODS: dict[str, Method] = {
    "fedavg": FedAvg(clients_per_round=3),
    "fedasync-polynomial": FedAsync(),
    "fedasync-hinge": FedAsync(staleness="hinge", a=1.0),
    "fedbuff": FedBuff(buffer_size=3),
    "rate-corrected": RateCorrectedFedBuff(),
    "rate-corrected-3": RateCorrectedFedBuff(buffer_size=3),
    "ace": ACE(),
    "slots": Slots(),
    "ringmaster": Ringmaster(delay_threshold=20),
    "deadline": Deadline(),
    "deadline-synchronous": Deadline(late="dropped"),
    "fadas-sgd": FADAS(buffer_size=3, optimizer=Sgd()),
    "ace-geometric-median": ACE(buffer_size=2, start=2, rule=GeometricMedian()),
    "deadline-krum": Deadline(rule=Krum()),
}
# Their step also holds what came before, or takes each parameter from another node.
NOT_BOUNDED_BY_WEIGHTS: dict[str, Method] = {
    "rate-corrected-median": RateCorrectedFedBuff(buffer_size=3, rule=CoordinateMedian()),
    "fedbuff-trimmed-mean": FedBuff(buffer_size=4, clip_factor=2, rule=TrimmedMean()),
    "ca2fl": CA2FL(buffer_size=3),
    "fadas": FADAS(buffer_size=3),
    "fedbuff-yogi": FedBuff(buffer_size=2, optimizer=Yogi()),
    "ca2fl-momentum": CA2FL(buffer_size=3, optimizer=Momentum(), rule=Krum()),
    "ace-centered-clipping": ACE(rule=CenteredClipping()),
    "slots-mixed-median": Slots(rule=MixedMedian()),
    "refereed": Refereed(),
}
WITH_ANY = pytest.mark.parametrize(
    "method",
    [*METHODS.values(), *NOT_BOUNDED_BY_WEIGHTS.values()],
    ids=[*METHODS, *NOT_BOUNDED_BY_WEIGHTS],
)
EACH_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)

QUICK = settings(max_examples=40, deadline=None)
_elements = st.floats(-10, 10, width=32)
_deltas = st.tuples(*[_elements] * NUM_PARAMS)
ARRIVALS = st.lists(
    st.builds(
        lambda node, delta, staleness, examples: contribution(
            node, *delta, staleness=staleness, num_examples=examples, drift=np.zeros(NUM_PARAMS, np.float32)
        ),
        st.sampled_from("abcde"),
        _deltas,
        st.integers(0, 50),
        st.integers(1, 10**9),
    ),
    max_size=25,
)


def fold_all(method: Method, arrivals: list[Contribution]) -> list[Step | None]:
    state, taken = method.init(), []
    for arrival in arrivals:
        state, step = method.fold(state, arrival, NUM_PARAMS)
        taken.append(step)
    return taken


def end(method: Method, arrivals: list[Contribution]) -> Vector:
    """Where the model ends."""
    model = FIRST.copy()
    for step in fold_all(method, arrivals):
        if step is not None:
            model = model + step.update
    return model


# Not among these: rounds with a deadline wait for the second answer of a node that is alone.
AT_ONCE: dict[str, Method] = {
    "fedavg": FedAvg(clients_per_round=1),
    "fedasync": FedAsync(alpha=1.0),
    "fedbuff": FedBuff(buffer_size=1),
    "rate-corrected": RateCorrectedFedBuff(server_learning_rate=1, clip_factor=1000),
    "rate-corrected-5": RateCorrectedFedBuff(buffer_size=5, server_learning_rate=1, clip_factor=1000),
    "ca2fl": CA2FL(buffer_size=1, server_learning_rate=1),
    "ace": ACE(server_learning_rate=1),
    "fadas-sgd": FADAS(buffer_size=1, server_learning_rate=1, optimizer=Sgd()),
    "ringmaster": Ringmaster(delay_threshold=1),
    "slots": Slots(server_learning_rate=1, clip_factor=0),
    "slots-mixed-median": Slots(server_learning_rate=1, clip_factor=0, rule=MixedMedian()),
}


@pytest.mark.parametrize("method", AT_ONCE.values(), ids=AT_ONCE)
@QUICK
@given(gradients=st.lists(_deltas.filter(lambda delta: 0.1 < math.hypot(*delta) < 10), min_size=1, max_size=10))
def test_one_honest_node_leaves_the_model_where_plain_sgd_would(
    method: Method, gradients: list[tuple[float, ...]]
) -> None:
    """The node always starts from the newest version, so every delta is a step of descent."""
    plain = FIRST.copy()
    for gradient in gradients:
        plain = plain + np.asarray(gradient, np.float32)
    arrivals = [contribution("a", *gradient, drift=np.zeros(NUM_PARAMS, np.float32)) for gradient in gradients]
    np.testing.assert_allclose(end(method, arrivals), plain, rtol=1e-5, atol=1e-5)


@EACH_METHOD
@QUICK
@given(arrivals=ARRIVALS)
def test_a_step_is_finite_and_its_weights_are_bounded(method: Method, arrivals: list[Contribution]) -> None:
    longest = max((arrival.norm for arrival in arrivals), default=0.0)
    most = method.max_rate if isinstance(method, RateCorrectedFedBuff) else 1.0
    for step in fold_all(method, arrivals):
        if step is not None:
            assert np.isfinite(step.update).all()
            assert all(0 < weight <= most * (1 + 1e-9) for weight in step.weights.values())
            assert norm(step.update) <= sum(step.weights.values()) * longest * (1 + 1e-5) + 1e-30


@WITH_ANY
@QUICK
@given(arrivals=ARRIVALS, cut=st.integers(0, 25))
def test_a_replay_from_any_stored_state_gives_the_same_bits(
    method: Method, arrivals: list[Contribution], cut: int
) -> None:
    through, resumed = method.init(), method.init()
    for place, arrival in enumerate(arrivals):
        if place == cut:
            resumed = msgspec.msgpack.decode(msgspec.msgpack.encode(resumed), type=type(method.init()))
        through, first = method.fold(through, arrival, NUM_PARAMS)
        resumed, second = method.fold(resumed, arrival, NUM_PARAMS)
        assert resumed == through
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert first.update.tobytes() == second.update.tobytes()
            assert first.weights == second.weights


@WITH_ANY
@QUICK
@given(arrivals=ARRIVALS)
def test_folding_changes_neither_the_state_nor_the_contribution(method: Method, arrivals: list[Contribution]) -> None:
    state = method.init()
    for arrival in arrivals:
        before = msgspec.msgpack.encode(state)
        drift = None if arrival.drift is None else arrival.drift.copy()
        following, _ = method.fold(state, arrival, NUM_PARAMS)
        assert msgspec.msgpack.encode(state) == before
        assert drift is None or np.array_equal(drift, arrival.drift)  # type: ignore[arg-type]
        state = following


@pytest.mark.parametrize("method", [CA2FL(buffer_size=2), ACE()], ids=["ca2fl", "ace"])
@QUICK
@given(deltas=st.lists(_deltas, min_size=4, max_size=4), order=st.lists(st.integers(0, 3), min_size=8, max_size=40))
def test_once_all_were_heard_everybody_counts_the_same_however_often_they_speak(
    method: Method, deltas: list[tuple[float, ...]], order: list[int]
) -> None:
    """Nodes that say the same again and again: each step is the mean over all of them."""
    said = [contribution(f"n{node}", *deltas[node]) for node in (0, 1, 2, 3, *order)]
    later = [step for step in fold_all(method, said)[4:] if step is not None]
    for step in later:
        np.testing.assert_allclose(step.update, np.mean(deltas, axis=0), rtol=1e-4, atol=1e-4)


# Not among these: FedAsync, where who comes last counts for most; the rate-corrected one, which learns paces by the
# order; rounds with a deadline, which end at second answers; rules that choose neighbours, of which several may be
# equally near.
OF_FOUR: dict[str, Method] = {
    "fedavg": FedAvg(clients_per_round=4),
    "fedbuff": FedBuff(buffer_size=4),
    "fedbuff-trimmed-mean": FedBuff(buffer_size=4, rule=TrimmedMean()),
    "ca2fl": CA2FL(buffer_size=4),
    "ace": ACE(buffer_size=4, start=4),
    "fadas": FADAS(buffer_size=4),
    "ringmaster": Ringmaster(delay_threshold=4),
    "slots": Slots(turns=1, start=4),
    "slots-median": Slots(turns=1, start=4, rule=CoordinateMedian()),
}


@pytest.mark.parametrize("method", OF_FOUR.values(), ids=OF_FOUR)
@QUICK
@given(
    deltas=st.lists(_deltas, min_size=4, max_size=4), examples=st.lists(st.integers(1, 1000), min_size=4, max_size=4)
)
def test_the_order_of_simultaneous_arrivals_does_not_matter(
    method: Method, deltas: list[tuple[float, ...]], examples: list[int]
) -> None:
    arrivals = [
        contribution(node, *delta, num_examples=count)
        for node, delta, count in zip("abcd", deltas, examples, strict=True)
    ]
    assert fold_all(method, arrivals)[-1] is not None
    ends = [end(method, list(order)) for order in permutations(arrivals)]
    for other in ends[1:]:
        np.testing.assert_allclose(other, ends[0], rtol=1e-5, atol=1e-5)


@QUICK
@given(deltas=st.lists(_deltas, min_size=5, max_size=5), base=_deltas)
def test_fedasync_stays_between_the_model_and_the_nodes_models(
    deltas: list[tuple[float, ...]], base: tuple[float, ...]
) -> None:
    """Mixing is convex: no coordinate leaves the range of the models that were mixed."""
    method = FedAsync(alpha=0.9)
    start = np.asarray(base, np.float32)
    model = start.copy()
    for staleness, delta in enumerate(deltas):
        arrival = contribution("a", *delta, staleness=staleness, drift=model - start)
        _, step = method.fold(method.init(), arrival, NUM_PARAMS)
        assert step is not None
        model = model + step.update
    lows = np.min([start, *(start + np.asarray(delta, np.float32) for delta in deltas)], axis=0)
    highs = np.max([start, *(start + np.asarray(delta, np.float32) for delta in deltas)], axis=0)
    assert (model >= lows - 1e-4).all()
    assert (model <= highs + 1e-4).all()


@QUICK
@given(tau=st.integers(0, 10**6), a=st.floats(0.01, 100), b=st.floats(0, 10**6))
def test_staleness_weights_lie_in_0_to_1_and_never_rise(tau: int, a: float, b: float) -> None:
    assert 0 <= polynomial(tau + 1, a) <= polynomial(tau, a) <= 1
    assert 0 < hinge(tau + 1, a, b) <= hinge(tau, a, b) <= 1
