"""What the screens say, from a status alone: no terminal, no textual."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfold.control.protocol import Rights
from fieldfold.logs import Entry
from fieldfold.sensors.files import OTHER_SERIES
from fieldfold.terminal.glyphs import curve, suited
from fieldfold.terminal.words import lines_of, text
from node_app.records import Adoption, Decided, Drift, Run
from node_app.tui import frame
from node_app.tui.alerts import alerts, shown
from node_app.tui.data import view as data
from node_app.tui.log import view as log
from node_app.tui.model import view as model
from node_app.tui.network import view as network
from node_app.tui.overview import view as overview
from node_app.tui.snapshot import Snapshot
from node_app.tui.training import view as training
from tests.node_app.tui.scripted import LEARNING, REPORT, waiting
from tests.terminal.screens import AT

MAY = Rights(may_command=True, why_not="", views=(), commands=("pause", "resume"))
ESCAPE = "\x1b[31mred\x1b]52;c;AAAA\x07"


def seen(**changes: Any) -> Snapshot:
    """A snapshot of a learning node, its status changed."""
    return Snapshot(now=AT, rights=MAY, status=msgspec.structs.replace(LEARNING, **changes), cpu_percent=38.2)


def words_of(snapshot: Snapshot) -> list[str]:
    return [alert.words for alert in alerts(snapshot)]


def test_the_header_says_who_how_and_where() -> None:
    assert lines_of(frame.header(seen(), "overview", 78)) == (
        "fieldfold  press-07  Overview             LEARNING   v412 (1 behind)   link ok"
    )
    down = lines_of(frame.header(seen(connected=False, version=None, state="waiting for a task"), "log", 78))
    assert down.endswith("WAITING FOR A TASK   no model   link down")


def test_the_header_gives_up_the_name_before_the_state() -> None:
    assert lines_of(frame.header(seen(), "overview", 40)).strip() == "LEARNING   v412 (1 behind)   link ok"


def test_a_read_only_screen_says_so_and_offers_no_pause() -> None:
    rights = Rights(may_command=False, why_not="this connection is read-only", views=(), commands=())
    snapshot = msgspec.structs.replace(seen(), rights=rights)
    assert "read-only" in lines_of(frame.header(snapshot, "overview", 100))
    assert "Pause" not in lines_of(frame.keys(snapshot, "overview", 78, has_list=False))


@pytest.mark.parametrize(
    ("state", "offered"), [("learning", "p Pause"), ("paused", "p Go on"), ("needs attention", "p Look again")]
)
def test_the_footer_says_what_p_does_now(state: str, offered: str) -> None:
    assert offered in lines_of(frame.keys(seen(state=state), "overview", 78, has_list=False))


@given(st.integers(1, 200), st.sampled_from(list(frame.ROOMS)), st.booleans())
def test_the_footer_fits_and_never_loses_help(width: int, room: str, has_list: bool) -> None:  # noqa: FBT001
    said = lines_of(frame.keys(seen(), room, width, has_list=has_list))
    assert "? Help" in said
    assert len(said) <= max(width, len("? Help"))
    if width >= 80:
        assert all(f"{key} {words}" in said for name, (key, words) in frame.ROOMS.items() if name != room)


def test_scores_are_those_of_this_gateways_own_data() -> None:
    snapshot = msgspec.structs.replace(seen(), adoptions=(Adoption(AT - 720, 412, 14.62, 411),))
    said = lines_of(overview.model(snapshot, 38, 6)).splitlines()
    assert said[0] == "global v413   here v412"
    assert said[1] == "rmse on own validation data"
    assert said[2].split()[:2] == ["global", "14.62"]
    assert said[3].split() == ["served", "14.1", "v411"]
    assert said[4] == "v412 refused here 12 min ago"


def test_a_node_without_a_task_is_told_where_one_comes_from() -> None:
    assert "fieldfold task publish" in lines_of(overview.model(seen(task="", version=None), 38, 6))


def test_what_training_costs_and_when_it_sends_next() -> None:
    said = lines_of(overview.training(seen(), 38, 6))
    assert "step 180 of 400   1.5 steps/s" in said
    assert "next update in 2 min" in said
    assert "ONNX Runtime on cpu: no CUDA device\n  here" in said
    assert "CPU 38 %   71 MB   52 °C" in said
    waits = seen(state="waiting for a newer version", next_run_s=540.0)
    assert overview.next_update(waits.status or LEARNING) == "next run within 9 min"


def test_the_link_with_its_bytes_beside_float32() -> None:
    said = lines_of(overview.link(seen(), 38, 5))
    assert "broker.plant:8883  TLS   23 ms" in said
    assert "up 3 h 0 min   2 reconnects today" in said
    assert "today 1.3 MB up   900.0 kB down" in said
    assert "float32 would be 131.0 MB" in said
    assert "down: refused" in lines_of(overview.link(seen(link_up_s=None, link="down: refused"), 38, 5))


def test_decisions_come_with_the_reason_where_one_was_rejected() -> None:
    history = (Decided(2, False, "the update is not finite", 3, 14_200, AT), Decided(1, True, "", 1, 900, AT))
    snapshot = msgspec.structs.replace(seen(), history=history)
    rows = [text(row) for row in training.updates(snapshot, 78)]
    assert rows[0].endswith("rejected       3   14.2 kB       -  the update is not finite")
    assert rows[1].split()[0] == "#1"
    assert "accepted" in rows[1]
    assert "#2 rejected" in lines_of(overview.updates(snapshot, 38, 5))


def test_a_version_that_is_not_served_says_which_is_better() -> None:
    snapshot = msgspec.structs.replace(seen(), adoptions=(Adoption(AT, 7, 14.0, 7), Adoption(AT, 8, 15.0, 7)))
    assert [text(row).split("  ")[-1] for row in model.adoptions(snapshot, 78)] == [
        "refused: v7 is better here",
        "adopted",
    ]


def test_a_model_of_the_gateways_own_is_named_and_has_its_score() -> None:
    own = seen(served_personal=True, served_score=13.2, personal_score=13.2)
    assert "served   13.2    v411 personal" in lines_of(overview.model(own, 38, 7))
    assert "personal 13.2" in lines_of(overview.model(own, 38, 7))
    assert "personal 13.2" in lines_of(model.versions(own, 38, 7))
    assert "personal" not in lines_of(model.versions(seen(), 38, 7))
    better = msgspec.structs.replace(own, adoptions=(Adoption(AT, 411, 14.0, 411, served_personal=True),))
    assert text(model.adoptions(better, 78)[0]).endswith("refused: v411 personal is better here")
    (alert,) = alerts(seen(served_personal=True, pinned=True))
    assert alert.words.startswith("v411 personal is pinned")


def test_the_data_says_what_was_dropped_and_why() -> None:
    said = lines_of(data.sources(seen(), 60, 9))
    assert "575 rows in 3 series, 1 file" in said
    assert "dropped 2 windows: shorter than a window" in said
    targets = lines_of(data.targets(seen(), 38, 7)).splitlines()
    assert targets[0] == "remaining life in cycles"
    assert targets[-1].endswith(" 188")


def test_drift_is_in_the_fleets_standard_deviations() -> None:
    drift = (Drift("s2", 642.7, 0.5, 642.6, 0.5), Drift("s3", 1590.5, 6.0, 1570.0, 6.0))
    rows = [text(row) for row in data.features(msgspec.structs.replace(seen(), drift=drift), 76)]
    assert rows[0].endswith("+0.2 std")
    assert rows[1].endswith("+3.4 std far")
    assert rows[2].endswith("-"), "a category has no mean"


def test_the_outbox_says_how_far_each_update_is() -> None:
    held = (waiting(8, has_left=True), waiting(9, has_left=True, chunks=2), waiting(10, has_left=False))
    snapshot = msgspec.structs.replace(seen(outbox=3), outbox=held)
    rows = [text(row) for row in network.outbox(snapshot, 78)]
    assert [row.split("ago")[-1].strip() for row in rows] == [
        "sent, waits for its receipt",
        "2 of 3 chunks",
        "not sent yet",
    ]
    assert "1.4 %" in lines_of(network.traffic(snapshot, 38, 7))


def test_what_is_being_fetched_is_said_with_how_much_of_it_is_here() -> None:
    fetching = seen(fetching="snapshot of v413: 43 %")
    assert "fetching snapshot of v413: 43 %" in lines_of(network.broker(fetching, 38, 9))
    assert "fetching" not in lines_of(network.broker(seen(), 38, 9))


def test_an_update_of_this_run_of_the_daemon_has_its_error() -> None:
    history = (Decided(2, True, "", 0, 900, AT), Decided(1, True, "", 0, 900, AT))
    runs = (Run(AT, 7, 0.2, 400, 1.7, 900, 2, 0.117),)
    rows = [text(row) for row in training.updates(msgspec.structs.replace(seen(), history=history, runs=runs), 78)]
    assert [row.split()[-1] for row in rows] == ["%", "-"]
    assert "12 %" in rows[0]


# -- what needs somebody ---------------------------------------------------------------------------------------------


def test_nothing_is_said_where_nothing_needs_doing() -> None:
    assert alerts(seen()) == []
    assert lines_of(shown(seen(), 78, 5)) == "nothing"


@pytest.mark.parametrize(
    ("changes", "words", "key"),
    [
        ({"state": "needs attention", "detail": "disk full; make room"}, "disk full; make room", "l"),
        ({"state": "paused"}, "training is paused: p goes on", "p"),
        ({"connected": False, "link": "down: timed out"}, "broker.plant:8883 is not reached: timed out", "n"),
        ({"outbox": 8}, "8 updates wait for receipts: does the aggregator run?", "n"),
        (
            {"accepted": 1, "rejected": 3, "last_receipt": "update 4 rejected: NaN"},
            "3 of 4 updates were rejected",
            "t",
        ),
        ({"newest_version": 450}, "38 versions behind", "n"),
        ({"served_version": 300}, "v300 is still served", "m"),
        (
            {"data": {**REPORT, "dropped_rows": {"text in vib_z": 25}}},
            "4 % of the rows are dropped, 25 for: text",
            "d",
        ),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else next(iter(value)),
)
def test_what_needs_somebody_says_what_to_do_and_where(changes: dict[str, Any], words: str, key: str) -> None:
    (alert,) = alerts(seen(**changes))
    assert words in alert.words
    assert alert.key == key


def test_what_the_configuration_left_out_needs_nobody() -> None:
    assert alerts(seen(data={**REPORT, "dropped_rows": {OTHER_SERIES: 20_000}})) == []


def test_the_urgent_comes_first_and_what_does_not_fit_is_counted() -> None:
    snapshot = seen(state="paused", connected=False, link="down: timed out", served_version=1)
    assert "is not reached" in words_of(snapshot)[0]
    assert lines_of(shown(snapshot, 100, 2)).splitlines()[-1].strip() == "and 2 more"


def test_a_daemon_that_is_gone_is_said_above_all_and_what_was_heard_stays() -> None:
    snapshot = msgspec.structs.replace(
        seen(), lost="/run/x.sock: no daemon answers there; start it", lost_at=AT - 300
    )
    assert words_of(snapshot) == [
        "/run/x.sock: no daemon answers there, for 5 min now: start it. It is asked again every second."
    ]
    assert "NOT REACHED   for 5 min" in lines_of(frame.header(snapshot, "overview", 78))
    assert lines_of(overview.model(snapshot, 38, 6))


# -- what always holds -----------------------------------------------------------------------------------------------


def test_words_from_elsewhere_cannot_command_the_terminal() -> None:
    snapshot = Snapshot(
        now=AT,
        status=msgspec.structs.replace(
            LEARNING, node=ESCAPE, task=ESCAPE, state=ESCAPE, detail=ESCAPE, link=ESCAPE, metric=ESCAPE,
            runtime_reason=ESCAPE, last_receipt=ESCAPE, broker=ESCAPE, connected=False,
        ),
        lost="",
        history=(Decided(1, False, ESCAPE, 0, 1, AT),),
        log=(Entry(AT, ESCAPE, ESCAPE),),
        drift=(Drift(ESCAPE, 9.0, 1.0, 0.0, 1.0),),
    )  # fmt: skip
    said = [
        *(frame.header(snapshot, "log", 99), frame.brief(snapshot, 99, 9), shown(snapshot, 99, 9)),
        *(view(snapshot, 99, 9) for view in (overview.model, overview.training, overview.updates, overview.link)),
        *(view(snapshot, 99, 9) for view in (training.present, model.versions, network.broker, network.traffic)),
        *(rows(snapshot, 99) for rows in (training.updates, log.entries, data.features)),
    ]
    assert not [each for each in map(lines_of, said) if "\x1b" in each or "\x07" in each]


@given(
    st.integers(1, 130),
    st.integers(1, 40),
    st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=50),
    st.sampled_from(["braille", "block", "ascii"]),
)
def test_curves_fit_whatever_the_values(width: int, height: int, values: list[float | None], glyphs: Any) -> None:
    rows = curve(values, width, height, glyphs)
    assert len(rows) == height
    assert all(len(row) <= width for row in rows)
    assert glyphs != "ascii" or all(row.isascii() for row in rows)


def test_a_falling_curve_falls_in_all_glyphs() -> None:
    falling = [3.0, 2.0, 1.0, 0.0]
    assert curve(falling, 4, 1, "block") == ["█▆▃▁"]
    assert curve(falling, 4, 1, "ascii") == ["'-._"]
    assert curve(falling, 4, 2, "ascii") == ["'.  ", "  -_"]
    assert curve(falling, 2, 1, "braille") == ["⠑⢄"]
    assert curve([5.0, 5.0], 4, 1, "block") == ["▄▄"]


def test_curves_of_loss_and_score_say_their_span() -> None:
    runs = tuple(Run(AT, version, 1 / (version + 1), 400, 1.7, 900, version, 0.4) for version in range(4))
    said = lines_of(overview.curves(msgspec.structs.replace(seen(), runs=runs), 40, 8)).splitlines()
    assert said[0] == "loss  0.25 to 1, 4 points"


def test_what_a_terminal_can_draw() -> None:
    assert suited({"TERM": "xterm-256color"}, "utf-8") == "braille"
    assert suited({"TERM": "linux"}, "utf-8") == "block"
    assert suited({"TERM": "xterm"}, "ANSI_X3.4-1968") == "ascii"


def test_the_words_are_drawn_without_textual() -> None:
    modules = "overview data training model network log".split()  # noqa: SIM905
    lines = [f"import node_app.tui.{name}.view" for name in modules]
    script = "\n".join(
        [*lines, "import node_app.cli, sys", "print('textual' in sys.modules, 'numpy' in sys.modules)"]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
