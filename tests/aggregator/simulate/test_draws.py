"""What a seed decides: the fleet, who holds what, and what a liar sends."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.simulate import attacks
from aggregator.simulate.fleet import draw, luck, switched_on_at
from aggregator.simulate.partition import Holdings, deal
from aggregator.simulate.scenario import (
    AttackConfig,
    AvailabilityConfig,
    LinkConfig,
    PartitionConfig,
    Scenario,
    SpeedConfig,
    load,
)
from fieldfold.errors import ConfigError
from fieldfold.params import as_vector, norm

SCENARIO = load(Path(__file__).parents[3] / "examples/turbofan/scenario.toml")
QUICK = settings(max_examples=40, deadline=None)


def scenario(**changes: object) -> Scenario:
    return msgspec.structs.replace(SCENARIO, **changes)


class TestFleet:
    def test_a_seed_draws_the_same_fleet_every_time_and_another_seed_another(self) -> None:
        first, again, other = draw(SCENARIO, 1), draw(SCENARIO, 1), draw(SCENARIO, 2)
        assert np.array_equal(first.update_s, again.update_s)
        assert not np.array_equal(first.update_s, other.update_s)

    def test_the_slowest_are_slower_by_the_factor(self) -> None:
        slow = scenario(nodes=100, speed=SpeedConfig(update_s=10, spread=0, slow_share=0.2, slow_factor=7))
        fleet = draw(slow, 0)
        assert fleet.update_s[~fleet.is_slow].tolist() == pytest.approx([10] * 80)
        assert fleet.is_slow.sum() == 20
        assert fleet.update_s[fleet.is_slow].tolist() == pytest.approx([70] * 20)

    def test_rates_are_without_limit_unless_one_is_given(self) -> None:
        fleet = draw(scenario(link=LinkConfig(up_kbit_s=80, spread=0)), 0)
        assert (fleet.up_bytes_s == 10_000).all()
        assert np.isinf(fleet.down_bytes_s).all()

    @pytest.mark.parametrize("who", ["random", "fastest"])
    def test_liars_are_as_many_as_told_and_sped_up(self, who: str) -> None:
        calm = draw(scenario(nodes=50, attack=AttackConfig("none")), 3)
        told = msgspec.convert({"kind": "noise", "share": 0.3, "who": who, "speed_up": 5}, AttackConfig)
        fleet = draw(scenario(nodes=50, attack=told), 3)
        assert fleet.is_lying.sum() == 15
        assert fleet.update_s[fleet.is_lying] * 5 == pytest.approx(calm.update_s[fleet.is_lying])
        if who == "fastest":
            assert calm.update_s[fleet.is_lying].max() <= calm.update_s[~fleet.is_lying].min()

    def test_what_only_slow_nodes_hold_is_held_by_the_honest(self) -> None:
        fleet = draw(
            scenario(nodes=50, attack=AttackConfig("alie"), partition=PartitionConfig("classes", slow_only=2)), 3
        )
        assert not (fleet.is_lying & fleet.is_slow).any()

    def test_a_run_has_luck_of_its_own(self) -> None:
        assert luck(0, 1, 2) == luck(0, 1, 2)
        assert len({luck(0, node, run) for node in range(5) for run in range(5)}) == 25

    def test_nodes_are_there_for_their_share_of_the_day(self) -> None:
        office = AvailabilityConfig(day_s=24, on_share=0.25)
        assert switched_on_at(10, 8, office) == 10
        assert switched_on_at(14, 8, office) == 32
        assert switched_on_at(31, 8, office) == 32
        assert switched_on_at(3, 0, AvailabilityConfig()) == 3


class TestPartition:
    @QUICK
    @given(seed=st.integers(0, 1000), nodes=st.integers(1, 30), by=st.sampled_from(["series", "classes", "even"]))
    def test_every_window_is_dealt_out_once(self, seed: int, nodes: int, by: str) -> None:
        rng = np.random.default_rng(seed)
        held = Holdings(rng.integers(0, 8, 400), rng.integers(0, 5, 400))
        config = msgspec.convert({"by": by}, PartitionConfig)
        dealt = deal(held, config, np.zeros(nodes, np.bool_), 0, seed)
        assert sorted(np.concatenate(dealt)) == list(range(400))

    def test_series_stay_whole_while_there_are_enough(self) -> None:
        held = Holdings(np.repeat(np.arange(10), 7), None)
        dealt = deal(held, PartitionConfig(), np.zeros(4, np.bool_), 0, 0)
        owners = [{int(series) for series in held.series[mine]} for mine in dealt]
        assert sum(map(len, owners)) == 10
        assert sorted(map(len, owners)) == [2, 2, 3, 3]

    def test_classes_of_the_slow_are_held_by_nobody_else(self) -> None:
        classes = np.repeat(np.arange(5), 100)
        is_slow = np.arange(20) >= 16
        dealt = deal(Holdings(classes, classes), PartitionConfig("classes", slow_only=2), is_slow, 0, 0)
        for slow, mine in zip(is_slow, dealt, strict=True):
            held = set(classes[mine])
            assert held <= ({3, 4} if slow else {0, 1, 2})

    def test_everybody_can_fill_a_batch(self) -> None:
        classes = np.repeat(np.arange(2), 10)
        dealt = deal(Holdings(classes, classes), PartitionConfig("classes", alpha=0.05), np.zeros(15, np.bool_), 8, 0)
        assert min(map(len, dealt)) >= 8

    def test_a_task_without_classes_has_none_to_deal_out(self) -> None:
        with pytest.raises(ConfigError, match="no classes"):
            deal(Holdings(np.zeros(9, np.int64), None), PartitionConfig("classes"), np.zeros(3, np.bool_), 1, 0)


class TestAttacks:
    HONEST = np.array([[1, 0], [3, 0], [2, 1], [2, -1]], np.float32)

    def test_sign_flip_goes_three_times_as_far_back(self) -> None:
        assert attacks.sign_flip(as_vector([1, -2])).tolist() == [-3, 6]

    def test_noise_is_ten_times_as_long(self) -> None:
        assert norm(attacks.noise(as_vector([3, 4]), np.random.default_rng(0))) == pytest.approx(50)

    def test_alie_is_a_deviation_below_the_mean(self) -> None:
        assert attacks.alie(self.HONEST).tolist() == pytest.approx([2 - 0.5**0.5, -(0.5**0.5)])

    def test_min_max_is_no_farther_from_anybody_than_two_honest_are_apart(self) -> None:
        lie = attacks.min_max(self.HONEST)
        # Against the mean (2, 0): at (x, 0), as far from (3, 0) as (1, 0) is, which is 2.
        assert lie.tolist() == pytest.approx([1, 0])
        assert max(norm(lie - row) for row in self.HONEST) == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "methods: is missing|task: is missing"),
        ("nodes = 0", "nodes"),
        ('profile = "tiny"', "profile"),
        ("until_s = 0", "would never end"),
        ('[attack]\nkind = "bribery"', "allowed here: none, sign-flip"),
    ],
)
def test_a_mistake_in_a_scenario_is_named(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    document = (Path(__file__).parents[3] / "examples/turbofan/scenario.toml").read_text()
    key = text.split(" ", maxsplit=1)[0]
    kept = [line for line in document.splitlines() if not line.startswith(f"{key} =")] if text else []
    path.write_text(
        "\n".join([*([] if text.startswith("[") else [text]), *kept, *([text] if text.startswith("[") else [])])
    )
    with pytest.raises(ConfigError, match=told):
        load(path)
