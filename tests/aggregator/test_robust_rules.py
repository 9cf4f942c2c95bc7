"""The robust rules: a case worked out on paper each, and what must hold of all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rules.centered_clipping import CenteredClipping
from aggregator.fold.rules.coordinate_wise import CoordinateMedian, TrimmedMean
from aggregator.fold.rules.geometric_median import GeometricMedian
from aggregator.fold.rules.krum import Krum
from aggregator.fold.rules.mixed_median import MixedMedian
from aggregator.fold.rules.named import RobustRule
from aggregator.fold.rules.rows import Rows, inner_products, squared_distances
from fieldfold.params import Vector, norm
from tests.aggregator.tiny import NUM_PARAMS, contribution

ORIGIN = np.zeros(2, np.float32)
RULES: dict[str, RobustRule] = {
    "coordinate-median": CoordinateMedian(),
    "trimmed-mean": TrimmedMean(),
    "centered-clipping": CenteredClipping(),
    "krum": Krum(),
    "one-krum": Krum(selected=1),
    "geometric-median": GeometricMedian(),
    "mixed-median": MixedMedian(),
}
EACH_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
QUICK = settings(max_examples=40, deadline=None)


def rows(*each: tuple[float, ...]) -> Rows:
    return np.array(each, np.float32)


def combined(rule: RobustRule, *each: tuple[float, ...], center: Vector = ORIGIN) -> list[float]:
    found: list[float] = rule.combine(rows(*each), center).vector.tolist()
    return found


def test_coordinate_median_takes_the_middle_of_each_parameter() -> None:
    assert combined(CoordinateMedian(), (1, 9), (2, 8), (99, -99)) == [2, 8]
    assert combined(CoordinateMedian(), (1, 0), (2, 0), (4, 0), (99, 0)) == [3, 0]


def test_trimmed_mean_leaves_out_both_ends_of_each_parameter() -> None:
    assert combined(TrimmedMean(fraction=0.25), (1, 9), (2, 8), (4, 7), (99, -99)) == [3, 7.5]
    assert combined(TrimmedMean(fraction=0.2), (1, 0), (2, 0), (3, 0), (6, 0)) == [3, 0]


def test_mixed_median_puts_in_place_of_each_row_the_mean_of_its_neighbours() -> None:
    # The three nearest: (1, 1/3) for each but the liar, who gets the mean of itself, the second and the third.
    each = (2, 0), (1, 1), (0, 0), (-30, 35)
    assert combined(MixedMedian(fraction=0.25), *each) == pytest.approx([1, 1 / 3], abs=0.01)


def test_mixed_median_gives_twins_one_vote_but_not_a_fleet_that_is_alike() -> None:
    # Of seven two may lie: so two that are alike may be liars, and three are not.
    each = (2, 0), (2.1, 0), (0, 1), (0, 1.01), (0, 0.99), (5, 5), (-30, 35)
    shares = MixedMedian().combine(rows(*each), ORIGIN).shares
    assert shares[1] == 0
    assert min(shares[[0, 2, 3, 4]]) > 0


def test_krum_takes_who_has_near_neighbours() -> None:
    each = (0, 0), (1, 0), (0, 1), (50, 50), (0.5, 0.5)
    # K = 5, f = 1: the two nearest count; (0.5, 0.5) has .5 + .5.
    assert combined(Krum(fraction=0.2, selected=1), *each) == [0.5, 0.5]
    assert combined(Krum(fraction=0.2), *each) == pytest.approx([1.5 / 4, 1.5 / 4])
    assert Krum(fraction=0.2).combine(rows(*each), ORIGIN).shares.tolist() == [0.25, 0.25, 0.25, 0, 0.25]


def test_geometric_median_of_three_on_a_line_is_the_middle_one() -> None:
    assert combined(GeometricMedian(iterations=100), (0, 0), (1, 0), (50, 0)) == pytest.approx([1, 0], abs=0.02)


def test_geometric_median_takes_one_weiszfeld_step_from_the_mean() -> None:
    # The mean of 0 and 0 and 3 is 1; distances 1, 1, 2; pulls 1, 1, 1/2; z = 1.5 / 2.5.
    assert combined(GeometricMedian(iterations=1), (0, 0), (0, 0), (3, 0)) == pytest.approx([0.6, 0])


def test_centered_clipping_moves_from_the_last_step_by_what_is_not_too_far() -> None:
    # From v = 1: distances 1, 1, 9; the radius is their median 1: v = 1 + (-1 + 1 + 1) / 3.
    rule = CenteredClipping(iterations=1)
    assert combined(rule, (0, 0), (2, 0), (10, 0), center=np.array([1, 0], np.float32)) == pytest.approx([4 / 3, 0])
    assert combined(rule, (0, 0), (0, 0), (10, 0), center=ORIGIN) == [0, 0]


def test_inner_products_and_distances() -> None:
    products = inner_products(rows((3, 4), (0, 1), (1, 0)))
    assert products.tolist() == [[25, 4, 3], [4, 1, 0], [3, 0, 1]]
    assert squared_distances(products).tolist() == [[0, 18, 20], [18, 0, 2], [20, 2, 0]]


@EACH_RULE
@QUICK
@given(honest=st.integers(3, 20), seed=st.integers(0, 2**32 - 1), away=st.sampled_from([10.0, 1e3, 1e6]))
def test_a_fifth_of_liars_moves_nobody_far(rule: RobustRule, honest: int, seed: int, away: float) -> None:
    """The result stays within a few of the honest rows' own spread of their mean, however far the liars are."""
    generator = np.random.default_rng(seed)
    true = generator.standard_normal(30)
    told = (true + 0.1 * generator.standard_normal((honest, 30))).astype(np.float32)
    lies = (-away * true[None] * np.ones((honest // 4, 1))).astype(np.float32)
    center = told.mean(0)
    vector = rule.combine(generator.permutation(np.concatenate([told, lies])), center).vector
    spread = max(norm(row - center) for row in told)
    assert norm(vector - center) <= 3 * spread


@EACH_RULE
@QUICK
@given(count=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_who_all_say_the_same_get_it(rule: RobustRule, count: int, seed: int) -> None:
    said = np.random.default_rng(seed).standard_normal(7).astype(np.float32)
    vector, shares = rule.combine(np.tile(said, (count, 1)), said)
    np.testing.assert_allclose(vector, said, rtol=1e-5, atol=1e-6)
    assert math.isclose(shares.sum(), 1, rel_tol=1e-6) or isinstance(rule, CenteredClipping)
    assert (shares >= 0).all()


@pytest.mark.parametrize(
    "rule",
    [CoordinateMedian(), TrimmedMean(), GeometricMedian(), CenteredClipping()],
    ids=lambda rule: type(rule).__name__,
)
@QUICK
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(rule: RobustRule, seed: int) -> None:
    generator = np.random.default_rng(seed)
    told = generator.standard_normal((9, 5)).astype(np.float32)
    center = told[0]
    there, back = (rule.combine(np.ascontiguousarray(each), center).vector for each in (told, told[::-1]))
    np.testing.assert_allclose(there, back, rtol=1e-4, atol=1e-5)


def test_a_method_steps_by_its_rule_and_tells_whose_part_it_was() -> None:
    method = FedBuff(buffer_size=4, rule=Krum(fraction=0.25))
    state, step = method.init(), None
    for node, value in zip("abcd", (1, 1.5, 50, 2), strict=True):
        state, step = method.fold(state, contribution(node, value, 0, 0), NUM_PARAMS)
    assert step is not None
    assert step.update.tolist() == pytest.approx([1.5, 0, 0])
    assert step.weights == {node: pytest.approx(1 / 3) for node in "abd"}
