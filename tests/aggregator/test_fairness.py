"""How the classes fare: what the nodes tell of each, put together so that no node's word owns a class."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from aggregator.cli import aggregator as command
from aggregator.config import AggregatorConfig
from aggregator.fairness import HEARD_WITHIN_S, Report, Table, by_class, heard, worst
from aggregator.fold.fedbuff import FedBuff
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision
from aggregator.records import ClassScore
from aggregator.status import Tally
from fieldfold.link.memory import MemoryBroker
from fieldfold.sensors.arrays import target_arrays
from fieldfold.sensors.schema import ColumnTarget
from fieldfold.task.bundle import SECTION_NAMES, Bundle, batch_bytes, pack
from fieldfold.task.manifest import Metric, SectionName
from tests.aggregator.running import Node, RunningAggregator, eventually
from tests.aggregator.tiny import FEDERATION, bundle, config, update

CLASSES = ("good", "worn")
TASK = "a task"


def tables(*told: tuple[tuple[float, int], ...]) -> list[Table]:
    return [np.array(each, np.float64) for each in told]


def score(*told: tuple[float, int]) -> float:
    """Of one class, of which each node tells a score and its examples."""
    found = by_class(["worn"], tables(*((each,) for each in told)))[0].score
    assert found is not None
    return found


class TestTheScoreOfAClass:
    def test_it_is_the_mean_over_nodes_weighted_by_their_examples(self) -> None:
        assert score((0.5, 10), (0.9, 20), (0.8, 30)) == pytest.approx((10 * 0.5 + 20 * 0.9 + 20 * 0.8) / 50)

    def test_nodes_that_hold_none_of_it_have_no_part(self) -> None:
        found = by_class(CLASSES, tables(((1.0, 10), (0.0, 0)), ((0.5, 10), (0.25, 4))))
        assert found == (ClassScore("good", 0.75, 20, 2), ClassScore("worn", 0.25, 4, 1))

    def test_of_a_class_that_nobody_holds_nothing_is_known(self) -> None:
        found = by_class(CLASSES, tables(((0.9, 10), (0.0, 0))))
        assert found == (ClassScore("good", 0.9, 10, 1), ClassScore("worn", None, 0, 0))
        assert worst(found, "higher") is None

    def test_where_nobody_reports_there_is_nothing(self) -> None:
        assert by_class(CLASSES, []) == ()

    @pytest.mark.parametrize(("better", "named"), [("higher", "b"), ("lower", "a")])
    def test_the_worst_is_worst_as_the_metric_means_it(self, better: str, named: str) -> None:
        scores = [ClassScore(name, value, 1, 1) for name, value in (("a", 0.9), ("b", 0.1), ("c", None))]
        assert worst(scores, "lower" if better == "lower" else "higher") == named


class TestOneThatLies:
    @given(
        st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100)), min_size=1, max_size=30),
        st.floats(0, 1),
        st.integers(1, 10**15),
    )
    def test_it_moves_a_class_by_no_more_than_its_share(
        self, honest: list[tuple[float, int]], lie: float, claimed: int
    ) -> None:
        ordered = sorted(count for _, count in (*honest, (lie, claimed)))
        most = ordered[(len(ordered) - 1) // 2]
        weight = min(claimed, most)
        share = weight / (weight + sum(min(count, most) for _, count in honest))
        assert share <= 2 / (len(honest) + 1)
        others = sum(value * min(count, most) for value, count in honest) / sum(min(c, most) for _, c in honest)
        assert abs(score(*honest, (lie, claimed)) - others) <= share * abs(lie - others) + 1e-9

    def test_a_claim_of_endless_examples_is_worth_those_of_the_median_node(self) -> None:
        honest = [(0.9, 10)] * 9
        assert score(*honest, (0.0, 10**15)) == pytest.approx(score(*honest, (0.0, 10))) == pytest.approx(0.81)


def report(task: str = TASK, at_s: float = 0.0, pace_s: float | None = None) -> Report:
    return Report(task, at_s, pace_s, np.zeros((2, 2)))


def test_who_was_not_heard_for_an_hour_and_is_not_slow_has_no_part() -> None:
    late = HEARD_WITHIN_S + 1
    assert len(heard([report()], TASK, HEARD_WITHIN_S)) == 1
    assert heard([report(), report(pace_s=60.0)], TASK, late) == []
    assert len(heard([report(pace_s=HEARD_WITHIN_S)], TASK, 10 * HEARD_WITHIN_S)) == 1


def test_what_was_told_of_another_task_has_no_part() -> None:
    assert len(heard([report(), report("another")], TASK, 0.0)) == 1


@cache
def sorting() -> Bundle:
    """The tiny task, with classes; nobody evaluates it here."""
    plain = bundle("raw", "none")
    data = msgspec.structs.replace(plain.manifest.data, target=ColumnTarget("state", classes=CLASSES))
    targets = target_arrays(data)
    sections: dict[SectionName, bytes] = {name: plain.section(name) for name in SECTION_NAMES}
    sections["self_check"] = bytes(batch_bytes((*plain.manifest.inputs, *targets), 2))
    manifest = msgspec.structs.replace(
        plain.manifest, data=data, kind="classification", targets=targets, metrics=(Metric("accuracy", "higher"),)
    )
    return Bundle.from_bytes(pack(manifest, sections))


def test_the_newest_word_of_a_node_counts_and_none_when_it_tells_none() -> None:
    tally = Tally({})

    def tells(sequence: int, *scores: tuple[float, int]) -> tuple[ClassScore, ...]:
        told = Decision(sorting().digest, "press-1", sequence, "", 0, 1, accepted=True, size_bytes=1)
        tally.decided(msgspec.structs.replace(told, class_scores=scores))
        return tally.classes(sorting(), ())

    assert [each.score for each in tells(1, (0.5, 1), (0.25, 2))] == [0.5, 0.25]
    assert [each.score for each in tells(2, (0.75, 1), (0.5, 2))] == [0.75, 0.5]
    assert tally.classes(sorting(), {"press-1"}) == ()
    assert tells(3) == ()


def test_they_go_from_the_nodes_through_the_ledger_to_the_status(
    start: Callable[[AggregatorConfig], RunningAggregator], broker: MemoryBroker, tmp_path: Path
) -> None:
    running = start(config(FedBuff(buffer_size=2)))
    running.publish(sorting())
    running.reaches(0)
    told = {"press-1": ((0.5, 30), (0.875, 10)), "press-2": ((0.0, 0), (0.625, 10))}
    for name, scores in told.items():
        Node(broker, name).send(update(name, class_scores=scores))
    running.reaches(1)
    Node(broker, "press-3").send(update("press-3", class_scores=((1.0, 10),)))
    eventually(lambda: running.status.rejected == 1)

    arguments = ["status", "--socket", str(tmp_path / "control.sock")]
    shown = CliRunner().invoke(command, arguments).output.splitlines()
    at = shown.index("classes     accuracy, worst for good")
    assert [" ".join(line.split()) for line in shown[at + 1 : at + 3]] == [
        "good 0.5 on 30 examples of 1 node",
        "worn 0.75 on 20 examples of 2 nodes",
    ]
    everything = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).output)
    assert everything["worst_class"] == "good"
    assert [each["score"] for each in everything["classes"]] == [0.5, 0.75]

    running.stop()
    ledger = Ledger.existing(tmp_path / "state" / "ledger.sqlite")
    kept = {each.node: each.class_scores for each in ledger.taken_lately(10) if each.accepted}
    ledger.close()
    assert kept == told
    assert math.isclose(running.status.classes[1].score or 0.0, 0.75)


def test_a_ledger_gives_them_back_as_they_came(tmp_path: Path) -> None:
    row = Decision(TASK, "press-1", 1, "", 0, 9, accepted=True, size_bytes=1, class_scores=((0.1, 3), (0.0, 0)))
    ledger = Ledger(tmp_path / "ledger.sqlite", FEDERATION)
    with ledger.transaction():
        ledger.put_decision(row)
    found = ledger.decision("press-1", 1)
    assert found is not None
    assert found.class_scores == row.class_scores
    assert ledger.taken_of("press-1", 1)[0].class_scores == row.class_scores
    ledger.close()
