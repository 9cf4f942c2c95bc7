"""What the fleet's screens say, from a status alone: no terminal, no textual."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.ledger.records import Operation
from aggregator.records import BackupView, ClassScore, NodeView, ProofView, Released, Taken
from aggregator.tui import frame
from aggregator.tui.alerts import view as alerts
from aggregator.tui.ledger import view as ledger
from aggregator.tui.node import view as node_view
from aggregator.tui.nodes import view as nodes
from aggregator.tui.operations import view as operations
from aggregator.tui.orders import ORDERS, following
from aggregator.tui.releases import view as releases
from aggregator.tui.snapshot import Snapshot
from fieldfold.control.protocol import Rights
from fieldfold.terminal.words import Line, lines_of
from fieldfold.wire.messages import NodePresence
from tests.aggregator.tui.fleet import FOLDING, node
from tests.terminal.screens import AT

MAY = Rights(may_command=True, why_not="", views=(), commands=())
ESCAPE = "\x1b[31mred\x1b]52;c;AAAA\x07"


def seen(**changes: Any) -> Snapshot:
    """A snapshot of a folding aggregator, its status changed."""
    return Snapshot(now=AT, rights=MAY, status=msgspec.structs.replace(FOLDING, **changes))


def quiet(*fleet: NodeView, **changes: Any) -> Snapshot:
    return seen(nodes=tuple(msgspec.structs.replace(each, rejected=0) for each in fleet), **changes)


def words(snapshot: Snapshot) -> str:
    return " | ".join(alert.words for alert in alerts.found(snapshot))


def test_a_quiet_fleet_needs_nobody() -> None:
    assert alerts.found(quiet(node(0), node(1))) == []
    assert lines_of(alerts.shown(quiet(node(0)), 78, 4)) == "nothing"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "storage full", "detail": "disk full"}, "intake stands still: disk full"),
        ({"connected": False, "link": "down: refused"}, "the broker is not reached: refused"),
        ({"state": "waiting for a task"}, "fieldfold task publish"),
        ({"state": "waiting for statistics", "statistics_from": 3}, "gateways have sent statistics: 3 have"),
        ({"state": "paused"}, "the model stays at v412: p goes on, e releases"),
        ({"evaluation_trouble": "no such file"}, "there are no held-out scores: no such file"),
        ({"malformed": 2}, "2 messages could not be read"),
        ({"reasons": {"too_many": 9}}, "9 updates put off"),
        ({"proof": ProofView("different")}, "restore a backup"),
    ],
)
def test_what_is_not_as_usual_is_said_with_what_to_do(changes: dict[str, Any], told: str) -> None:
    assert told in words(quiet(node(0), **changes))


def test_a_node_that_is_refused_again_and_again_is_named_until_it_is_excluded() -> None:
    bad = node(0, node="mill-05", rejected=20, accepted=3, last_reason="NaN")
    assert "mill-05: 20 of 23 updates refused: NaN; x excludes it" in words(seen(nodes=(bad,)))
    out = msgspec.structs.replace(bad, excluded_by="root")
    assert "mill-05" not in words(seen(nodes=(out,)))


def test_nodes_that_are_away_slow_or_stuck_are_counted() -> None:
    away = [node(number, presence=NodePresence(node=f"a-{number}", state="offline")) for number in range(5)]
    assert "5 of 13 nodes are away: press-00, press-01, press-02 and 2 more" in words(quiet(*away))
    fleet = [node(0, pace_s=10.0), node(6, pace_s=11.0), node(12, pace_s=300.0)]
    assert "press-12: more than ten times slower" in words(quiet(*fleet))
    stuck = node(0, presence=NodePresence(node="press-00", state="needs attention", detail="no column 26"))
    assert "press-00 cannot go on: no column 26" in words(quiet(stuck))


CLASSES = tuple(
    ClassScore(name, score, 10, 3) for name, score in (("inner", 0.9), ("outer", 0.2), ("ball", 0.8), ("cage", None))
)


def test_a_class_that_fares_far_worse_is_named() -> None:
    said = quiet(node(0), metric="accuracy", classes=CLASSES, worst_class="outer")
    assert "accuracy 0.2 for outer, which 3 nodes see; 0.8 for the median class" in words(said)
    even = tuple(msgspec.structs.replace(each, score=0.7) for each in CLASSES)
    assert alerts.found(quiet(node(0), classes=even, worst_class="inner")) == []


def test_a_node_shows_its_own_score_of_the_worst_class_where_it_holds_it() -> None:
    taken = Taken(1, AT, "press-00", 1, 0, 0, 1.0, 1, 1, accepted=True, code="", reason="")

    def says(*scores: tuple[float, int]) -> str:
        snapshot = quiet(node(0), classes=CLASSES, worst_class="outer")
        newest = msgspec.structs.replace(taken, class_scores=scores)
        return lines_of(node_view.says(msgspec.structs.replace(snapshot, node="press-00", of_node=(newest,)), 60, 8))

    assert "on its own data, 0.4 for outer" in says((0.9, 5), (0.4, 5), (0.0, 0), (0.0, 0))
    assert "outer" not in says((0.9, 5), (0.0, 0), (0.0, 0), (0.0, 0))
    assert "outer" not in says()


def test_a_share_in_the_movement_is_weight_times_length() -> None:
    fleet = (node(0, node="a", norm=3.0), node(1, node="b", norm=1.0), node(2, node="c", norm=None))
    snapshot = msgspec.structs.replace(quiet(*fleet), voices={"a": 0.25, "b": 0.5, "c": 0.25})
    assert nodes.movement(snapshot) == pytest.approx({"a": 0.75 / 1.75, "b": 0.5 / 1.75, "c": 0.5 / 1.75})
    assert nodes.movement(quiet()) == {}


@given(st.integers(57, 160), st.sampled_from(ORDERS))
def test_what_the_nodes_are_sorted_by_is_always_shown(width: int, order: Any) -> None:
    snapshot = msgspec.structs.replace(quiet(node(0)), order=order)
    assert order.upper() in nodes.heading(snapshot, width)
    assert len(lines_of(nodes.rows(snapshot, width)).split()) >= len(nodes.shown(snapshot, width))


def test_one_voice_among_many_is_named() -> None:
    snapshot = msgspec.structs.replace(quiet(node(0)), voices={"a": 0.8, "b": 0.1, "c": 0.1})
    assert "a makes up 80 % of what moves the model" in words(snapshot)


@pytest.mark.parametrize(("better", "score", "is_worse"), [("lower", 16.0, True), ("higher", 16.0, False)])
def test_worse_than_the_best_is_as_the_metric_means_it(better: str, score: float, is_worse: bool) -> None:  # noqa: FBT001
    versions = (Released(1, AT, 13.0, 3, 100), Released(2, AT, 16.0, 3, 100))
    snapshot = msgspec.structs.replace(quiet(node(0), better=better, score=score), versions=versions)
    assert ("is worse than 13 at v1" in words(snapshot)) is is_worse


@given(st.permutations(range(13)), st.sampled_from(ORDERS))
def test_every_order_has_every_node_once(shuffled: list[int], order: Any) -> None:
    snapshot = msgspec.structs.replace(seen(nodes=tuple(node(number) for number in shuffled)), order=order)
    assert sorted(nodes.names(snapshot)) == [f"press-{number:02d}" for number in range(13)]


def test_sorting_goes_round() -> None:
    order: Any = "node"
    for _ in ORDERS:
        order = following(order)
    assert order == "node"


@given(st.integers(1, 200), st.sampled_from([*frame.ROOMS, "node"]))
def test_the_footer_fits_and_never_loses_help(width: int, room: str) -> None:
    said = lines_of(frame.keys(seen(), room, width, own=(("x", "Exclude"),)))
    assert "? Help" in said
    assert len(said) <= max(width, len("? Help"))


def hostile() -> Snapshot:
    """Every text that comes from elsewhere tries to command the terminal."""
    told = NodePresence(
        node=ESCAPE, state=ESCAPE, detail=ESCAPE, software=ESCAPE, metric=ESCAPE, version=1, loss=float("nan")
    )
    bad = node(0, presence=told, last_reason=ESCAPE, rejected=99, accepted=0)
    stuck = node(1, presence=NodePresence(node="b", state="needs attention", detail=ESCAPE))
    taken = Taken(1, AT, "press-00", 1, 0, 0, 1e9, 1, 1, accepted=False, code=ESCAPE, reason=ESCAPE)
    tells = msgspec.structs.replace(taken, accepted=True, class_scores=((0.1, 1),) * 3)
    return msgspec.structs.replace(
        seen(
            nodes=(bad, stuck),
            metric=ESCAPE,
            classes=(ClassScore("good", 0.9, 1, 1), ClassScore("bad", 0.9, 1, 1), ClassScore(ESCAPE, 0.1, 1, 1)),
            worst_class=ESCAPE,
            detail=ESCAPE,
            link=ESCAPE,
            connected=False,
            state="storage full",
            federation=ESCAPE,
            evaluation_trouble=ESCAPE,
            proof=ProofView("done", said=ESCAPE),
            backup=BackupView(ESCAPE, "done"),
        ),
        lost=ESCAPE,
        node="press-00",
        decisions=(taken,),
        rejections=(taken,),
        of_node=(taken, tells),
        operations=(Operation(1, AT, ESCAPE, ESCAPE, ESCAPE, ESCAPE),),
    )


@pytest.mark.parametrize("lost", [ESCAPE, ""])
def test_nothing_from_elsewhere_commands_the_terminal(lost: str) -> None:
    snapshot = msgspec.structs.replace(hostile(), lost=lost)
    panes = [
        frame.header(snapshot, "Nodes", 120),
        frame.brief(snapshot, 40, 12),
        *(
            view(snapshot, 120, 20)
            for view in (
                nodes.model,
                node_view.says,
                node_view.counts,
                releases.scores,
                ledger.proof,
                alerts.shown,
            )
        ),
    ]
    lists: list[Line] = [
        row
        for rows in (nodes.rows, node_view.updates, ledger.decisions, alerts.refused, operations.rows)
        for row in rows(snapshot, 200)
    ]
    said = "\n".join([*map(lines_of, panes), lines_of(lists)])
    assert all(character == "\n" or character.isprintable() for character in said)


def test_the_words_need_no_textual() -> None:
    modules = "frame, alerts.view, ledger.view, node.view, nodes.view, operations.view, releases.view, reader"
    imports = "; ".join(f"import aggregator.tui.{name.strip()}" for name in modules.split(","))
    said = f"import sys; {imports}; print({{'textual', 'rich'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
