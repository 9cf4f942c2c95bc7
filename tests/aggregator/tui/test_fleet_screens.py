"""Keys and states of the fleet's screens, against a real control socket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from aggregator.records import ProofView, Released
from aggregator.tui.app import FleetApp
from fieldfold.terminal import themes
from fieldfold.terminal.items import Items
from fieldfold.terminal.pane import Pane
from fieldfold.terminal.reading import Question, Reading
from fieldfold.terminal.room import Room
from tests.aggregator.tui.fleet import FOLDING, ScriptedFleet, attached, node
from tests.terminal.screens import AT, Screens, assert_as_drawn, drawn, drive

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(autouse=True)
def _same_time_of_day_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedFleet:
    """Its path stands on the screen, so it is the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    return ScriptedFleet(Path("aggregator.sock"))


def first_row(screens: Screens[FleetApp]) -> str:
    """The first node of the table."""
    return next(line for line in screens.text.splitlines() if "-0" in line or "-1" in line).split()[0]


def test_each_screen_by_its_key(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("FOLDING", "v412", "10 of 13 online", "mill-05", "held-out RMSE 13.9")
                for key, words in {
                    "r": ("Releases", "v412", "14.5", "best at v412"),
                    "l": ("Ledger", "not verified since", "1834"),
                    "a": ("Alerts", "mill-05: 612 of 619 updates refused", "NaN"),
                    "o": ("Operations", "publish task", "task turbofan replaces none"),
                    "n": ("Nodes", "Needs you"),
                }.items():
                    await screens.press(key)
                    assert words[0] in (await screens.reads(*words)).splitlines()[0]
                seen = []
                for key in ("tab", "right", "right", "left", "h", "shift+tab", "shift+tab"):
                    await screens.press(key)
                    seen.append(screens.room)
                assert seen == ["releases", "ledger", "alerts", "ledger", "releases", "nodes", "operations"]

    drive(work())


def test_a_node_in_depth_and_back(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("press-01")
                await screens.press("down", "enter")
                await screens.reads("Node", "press-00", "learning", "It says", "holds v412")
                await screens.press("escape")
                assert screens.room == "nodes"
                await screens.press("home", "enter")
                await screens.reads("mill-05", "612 refused", "#900", "NaN")
                await screens.press("escape", "n")
                assert screens.room == "nodes"

    drive(work())


def test_sorting_goes_through_the_columns_and_keeps_the_node(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path, (80, 30)) as screens:
                await screens.reads("press-01")
                assert first_row(screens) == "mill-05"
                await screens.press("G")
                assert screens.app.chosen_node == "press-11"
                firsts = []
                for _ in range(11):
                    await screens.press("s")
                    firsts.append(screens.app.room.listing._known[0])  # type: ignore[union-attr]
                    assert screens.app.chosen_node == "press-11", "what is highlighted stays so"
                assert firsts[0] == "press-04", "it cannot go on"
                assert firsts[1:4] == ["press-02", "press-03", "press-04"], "the oldest version, stale, the slowest"
                assert firsts[5] == "press-04", "its updates are the longest"
                assert firsts[6:8] == ["press-00", "mill-05"], "accepted and refused"
                assert firsts[10] == "mill-05", "and by name again"

    drive(work())


def test_finding_a_node(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("press-01")
                await screens.press("slash", *"ss-07")
                await screens.reads_no("press-01")
                await screens.press("enter")
                assert screens.app.chosen_node == "press-07"
                await screens.press("x")
                assert isinstance(screens.shown, Question)
                assert "Exclude press-07?" in screens.shown.question
                await screens.press("n", "slash", "escape")
                await screens.reads("press-01")
                assert not screens.app.screen.query_one(Input).value

    drive(work())


def test_excluding_asks_first_and_so_does_readmitting(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("mill-05", "x Exclude")
                for answer in ("n", "escape", "enter"):
                    await screens.press("x", answer)
                assert fleet.commanded == []
                await screens.press("x", "y")
                await screens.reads("exclude is done", "excluded")
                await screens.press("x")
                assert isinstance(screens.shown, Question)
                assert "Readmit mill-05?" in screens.shown.question
                await screens.press("y")
                await screens.reads("readmit is done")
                assert fleet.commanded == [("exclude", {"node": "mill-05"}), ("readmit", {"node": "mill-05"})]
                await screens.press("o")
                await screens.reads("readmit is done")

    drive(work())


def test_pausing_releasing_and_going_on(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path, (100, 24)) as screens:
                await screens.reads("p Pause")
                await screens.press("p")
                assert isinstance(screens.shown, Question)
                assert "Hold the model at v412?" in screens.shown.question
                await screens.press("y")
                await screens.reads("PAUSED", "p Go on", "e Release", "the model stays at v412")
                await screens.press("e", "y")
                await screens.reads("v413")
                await screens.press("p")
                await screens.reads("FOLDING")
                assert [name for name, _ in fleet.commanded] == ["pause", "release", "resume"]

    drive(work())


def test_a_node_is_asked_to_pause(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("press-00")
                await screens.press("j", "z", "y")
                await screens.reads("pause is done")
                assert fleet.commanded == [("pause", {"node": "press-00"})]

    drive(work())


def test_rolling_back_to_the_highlighted_version(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.press("b", "r")
                await screens.reads("v412", "b Roll back")
                await screens.press("down", "down", "enter")
                assert isinstance(screens.shown, Reading)
                assert screens.shown.text.startswith("version 410, held-out")
                await screens.press("escape", "b")
                assert isinstance(screens.shown, Question)
                assert "Roll back to version 410" in screens.shown.question
                await screens.press("y")
                await screens.reads("roll_back is done")
                assert fleet.commanded == [("roll_back", {"version": 410})]

    drive(work())


def test_verifying_with_progress(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.press("l")
                await screens.reads("v Verify")
                await screens.press("v", "y")
                await screens.reads("verifying ", "600 of 1,204 folded again")
                fleet.say(proof=ProofView("done", 1204, 1204, "versions 0 to 412 are bit for bit what was released"))
                await screens.reads("verified", "bit for bit")
                fleet.say(proof=ProofView("different", said="DIFFERENT at version 7"))
                await screens.press("a")
                await screens.reads("restore a backup")
                assert fleet.commanded == [("verify", {})]

    drive(work())


def test_a_read_only_screen_commands_nothing_even_if_it_tries(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path, (100, 24), read_only=True) as screens:
                said = await screens.reads("read-only", "mill-05")
                assert "Exclude" not in said
                assert "Pause" not in said
                await screens.press("x")
                await screens.reads("this connection is read-only")
                assert not isinstance(screens.shown, Question)
                screens.app.attachment.command("pause")
                await screens.reads("read-only; attach")
                assert fleet.commanded == []

    drive(work())


def test_it_says_that_the_aggregator_is_gone_and_attaches_again_by_itself(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        async with attached(fleet.path, (100, 24)) as screens:
            await screens.reads("NOT REACHED", "no daemon answers")
            with fleet.up():
                await screens.reads("FOLDING", "mill-05")
            said = await screens.reads("NOT REACHED", "It is asked again every second")
            assert "mill-05" in said, "what was last heard stays"
            fleet.say(version=500)
            with fleet.up():
                await screens.reads("v500")

    drive(work())


def test_help_names_every_key_on_every_screen(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("mill-05")
                for key in ("n", "enter", "r", "l", "a", "o"):
                    await screens.press(key, "question_mark")
                    assert isinstance(screens.shown, Reading)
                    assert "written into the ledger with who asked" in screens.shown.text
                    await screens.press("q")
                    assert isinstance(screens.shown, Room)

    drive(work())


def test_the_palette_offers_what_is_possible_here(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("mill-05")
                titles = [each.title for each in screens.app.get_system_commands(screens.app.screen)]
                assert {"Open Releases", "Pause", "Exclude or readmit mill-05", "Quit"} <= set(titles)
                await screens.press("r")
                await screens.reads("v412")
                titles = [each.title for each in screens.app.get_system_commands(screens.app.screen)]
                assert "Roll back to this version" in titles

    drive(work())


def test_an_idle_screen_draws_nothing(fleet: ScriptedFleet) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("mill-05", "held-out RMSE 13.9", "best 14.47 at v412", "7.69 %")

                def drawn() -> list[int]:
                    parts = [*screens.app.screen.query(Pane), *screens.app.screen.query(Items)]
                    return [part.drawn for part in parts]

                before = drawn()
                fleet.say(uptime_s=5 * 3600.0, bytes_published=3_000_100)
                await screens.pass_by(10)
                assert drawn() == before

    drive(work())


@pytest.mark.parametrize("theme", ["dark", "light", "16"])
def test_each_theme_shows_the_same_words(fleet: ScriptedFleet, theme: str) -> None:
    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path, theme=theme) as screens:
                assert screens.app.theme == themes.NAMES[theme]
                await screens.reads("FOLDING", "mill-05", "Needs you")

    drive(work())


def test_ascii_glyphs_draw_ascii(fleet: ScriptedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path, glyphs="ascii") as screens:
                assert screens.app.no_color
                for key in "nrlao":
                    await screens.press(key)
                    said = await screens.reads("plant-south")
                    assert said.isascii(), said

    drive(work())


def test_two_thousand_nodes_are_sorted_and_found(fleet: ScriptedFleet) -> None:
    fleet.say(nodes=tuple(node(number, node=f"press-{number:04d}") for number in range(2000)), nodes_known=2000)

    async def work() -> None:
        with fleet.up():
            async with attached(fleet.path) as screens:
                await screens.reads("press-0000")
                await screens.press("G")
                await screens.reads("press-1999")
                await screens.press("s")
                assert screens.app.chosen_node == "press-1999"
                await screens.press("slash", *"1234")
                await screens.reads("press-1234")
                assert screens.app.chosen_node == "press-1234"

    drive(work())


# -- pictures --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_state(fleet: ScriptedFleet, state: str) -> Iterator[str]:
    """The aggregator in one of four states; gives words that show that the screen is there."""
    if state == "disconnected":
        yield "no daemon answers"
        return
    if state == "alerting":
        fleet.say(state="storage full", detail="the ledger cannot be written: disk full", connected=False, score=19.0)
        fleet.versions.append(Released(413, AT, 13.75, 0, 900, to_version=400))
        fleet.say(proof=ProofView("different", said="DIFFERENT at version 7, contribution 21: its parameters differ"))
    else:
        fleet.say(nodes=tuple(msgspec.structs.replace(each, rejected=0, last_reason="") for each in FOLDING.nodes))
    with fleet.up():
        yield {"training": "FOLDING", "alerting": "STORAGE FULL", "read-only": "read-only"}[state]


@pytest.mark.parametrize("look", ["dark", "light", "no colour"])
@pytest.mark.parametrize("state", ["training", "alerting", "read-only", "disconnected"])
def test_every_screen_looks_as_it_was_drawn(
    fleet: ScriptedFleet, state: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture for all looks, since nothing is said by colour alone."""
    if look == "no colour":
        monkeypatch.setenv("NO_COLOR", "1")
    theme = "light" if look == "light" else "dark"
    found = ""

    async def work() -> None:
        nonlocal found
        with in_state(fleet, state) as sign:
            async with attached(fleet.path, (100, 24), theme=theme, read_only=state == "read-only") as screens:
                await screens.reads(sign)
                found = await drawn(
                    screens, state, ["n", *([] if state == "disconnected" else ["enter"]), "r", "l", "a", "o"]
                )

    drive(work())
    assert_as_drawn(found, PICTURES / f"{state}.txt")


def test_the_app_stays_thin() -> None:
    root = Path(__file__).resolve().parents[3]
    for path in ("aggregator/tui/app.py", "fieldfold/terminal/app.py"):
        assert len((root / path).read_text(encoding="utf-8").splitlines()) < 250
