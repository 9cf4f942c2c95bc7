"""Keys and states of the node's screens, against a real control socket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Input

from fieldfold.logs import Entry
from fieldfold.terminal import themes
from fieldfold.terminal.items import Items
from fieldfold.terminal.pane import Pane
from fieldfold.terminal.reading import Question, Reading
from node_app.tui.app import NodeApp
from node_app.tui.room import NodeRoom
from tests.node_app.tui.scripted import REPORT, ScriptedDaemon, attached, waiting
from tests.terminal.screens import AT, assert_as_drawn, drawn, drive

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(autouse=True)
def _same_time_of_day_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedDaemon:
    """Its path stands on the screen, so it is the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    return ScriptedDaemon(Path("node.sock"))


def test_each_screen_by_its_key(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.reads("Overview", "#42 accepted", "v412 refused here 1 min ago")
                for key, words in {
                    "d": ("Data", "+3.4 std far", "remaining life in cycles"),
                    "t": ("Training", "the update is not finite", "step 180 of 400"),
                    "m": ("Model", "refused: v411 is better here"),
                    "n": ("Network", "round trip 23 ms", "every update has its receipt"),
                    "l": ("Log", "connected to broker.plant"),
                    "o": ("Overview", "Needs you"),
                }.items():
                    await screens.press(key)
                    assert words[0] in (await screens.reads(*words)).splitlines()[0]

    drive(work())


def test_tab_and_arrows_go_round_the_screens(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                seen = []
                for _ in range(6):
                    await screens.press("tab")
                    seen.append(screens.room)
                assert seen == ["data", "training", "model", "network", "log", "overview"]
                for key, name in (("left", "log"), ("right", "overview"), ("shift+tab", "log"), ("h", "network")):
                    await screens.press(key)
                    assert screens.room == name

    drive(work())


def test_a_click_on_the_footer_is_its_key(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                footer = (await screens.reads("t Training")).splitlines()[-1]
                await screens.click(footer.index("t Training") + 3, 23)
                assert screens.room == "training"

    drive(work())


def test_moving_in_a_list_reading_and_copying_a_row(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.press("t")
                await screens.reads("#42")
                items = screens.app.screen.query_one(Items)
                for key, place in (("j", 1), ("down", 2), ("k", 1), ("up", 0), ("G", 29), ("g", 0)):
                    await screens.press(key)
                    assert items.highlighted == place, key
                await screens.press("j", "j", "j", "c")
                assert screens.app.clipboard.endswith("the update is not finite")
                await screens.press("enter")
                assert isinstance(screens.shown, Reading)
                assert screens.shown.text.startswith("#39")
                await screens.press("escape")
                assert isinstance(screens.shown, NodeRoom)

    drive(work())


def test_a_feature_in_depth_with_a_window_of_it_drawn(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.press("d")
                await screens.reads("s2 [K]", "+0.2 std")
                await screens.press("enter")
                said = await screens.reads("a training window of 30 rows: 0 to 6 as the model sees it")
                assert "fleet 642.6 K, give or take 0.5" in said
                await screens.press("escape", "j", "j", "enter")
                assert "a training window" not in await screens.reads("0 values missing"), "a category has none"

    drive(work())


def test_finding_in_a_list(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.press("t")
                await screens.reads("#42")
                await screens.press("slash", *"not finite")
                await screens.reads_no("#42")
                assert "#39" in screens.text
                assert "Training" in screens.text, "letters that are keys elsewhere belong to the line"
                await screens.press("enter")
                assert isinstance(screens.app.focused, Items)
                await screens.press("slash", *"zzz")
                await screens.reads("nothing with 'zzz' in it")
                await screens.press("escape")
                await screens.reads("#42", "#39")
                assert not screens.app.screen.query_one(Input).value

    drive(work())


def test_help_on_every_screen(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                for key in "odtmnl":
                    await screens.press(key, "question_mark")
                    assert isinstance(screens.shown, Reading)
                    assert "q leaves: the daemon goes on" in screens.shown.text
                    await screens.press("q")
                    assert isinstance(screens.shown, NodeRoom)

    drive(work())


def test_the_log_follows_until_somebody_looks_back(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                for number in range(60):
                    daemon.log.add(Entry(AT, "info", f"line {number}"))
                await screens.press("l")
                await screens.reads("line 59")
                daemon.log.add(Entry(AT, "error", "line 60"))
                await screens.reads("line 60")
                await screens.press("home")
                await screens.reads("connected to broker.plant")
                daemon.log.add(Entry(AT, "info", "line 61"))
                assert "line 61" not in screens.text
                await screens.press("f")
                assert "connected to broker" not in await screens.reads("line 61")

    drive(work())


def test_pausing_asks_first_and_going_on_does_not(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.reads("p Pause")
                for answer in ("n", "escape", "enter"):
                    await screens.press("p")
                    assert isinstance(screens.shown, Question)
                    await screens.press(answer)
                    assert isinstance(screens.shown, NodeRoom)
                assert daemon.commanded == []
                await screens.press("p", "y")
                await screens.reads("PAUSED", "p Go on", "training is paused: p goes on")
                await screens.press("p")
                await screens.reads("LEARNING", "p Pause")
                assert daemon.commanded == ["pause", "resume"]

    drive(work())


def test_rolling_back_pinning_and_exporting_the_served_model(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path, (110, 24)) as screens:
                await screens.reads("LEARNING")
                await screens.press("b", "i", "w")
                assert isinstance(screens.shown, NodeRoom), "these keys belong to Model"
                await screens.press("m")
                await screens.reads("b Roll back", "i Pin", "w Export")
                for key, asked in (
                    ("b", "Serve v408 again instead of v411"),
                    ("i", "Pin v411?"),
                    ("w", "Write v411"),
                ):
                    await screens.press(key)
                    assert isinstance(screens.shown, Question)
                    assert asked in screens.shown.question
                    await screens.press("n")
                assert daemon.commanded == []
                await screens.press("b", "y")
                await screens.reads("roll_back is done", "v408", "pinned")
                await screens.press("i")
                await screens.reads("unpin is done")
                await screens.press("w", "y")
                await screens.reads("export is done")
                assert daemon.commanded == ["roll_back", "unpin", "export"]

    drive(work())


def test_a_read_only_screen_commands_nothing_even_if_it_tries(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path, read_only=True) as screens:
                assert "Pause" not in await screens.reads("read-only")
                await screens.press("p")
                await screens.reads("this connection is read-only")
                screens.app.attachment.command("pause")
                await screens.reads("without read-only")
                assert daemon.commanded == []

    drive(work())


def test_it_says_that_the_daemon_is_gone_and_attaches_again_by_itself(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        async with attached(daemon.path, (100, 24)) as screens:
            await screens.reads("NOT REACHED", "no daemon answers")
            with daemon.up():
                await screens.reads("LEARNING", "#42 accepted")
            said = await screens.reads("NOT REACHED", "It is asked again every second")
            assert "#42 accepted" in said, "what was last heard stays"
            await screens.press("p", "m")
            await screens.reads("Model")
            daemon.say(state="waiting for receipts", version=7)
            with daemon.up():
                await screens.reads("WAITING FOR RECEIPTS", "v7 ")

    drive(work())


def test_an_idle_screen_draws_nothing(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.reads("#42 accepted", "refused here", "LEARNING")
                daemon.say(uptime_s=daemon.now.uptime_s + 1)
                await screens.reads("CPU 0 %")
                before = {pane: pane.drawn for pane in screens.app.screen.query(Pane)}
                daemon.say(uptime_s=daemon.now.uptime_s + 20, memory_bytes=71_310_000)
                await screens.pass_by(10)
                assert {pane: pane.drawn for pane in screens.app.screen.query(Pane)} == before
                daemon.say(loss=0.1)
                await screens.reads("loss 0.1 ")
                drawn = [pane for pane in screens.app.screen.query(Pane) if pane.drawn != before[pane]]
                assert [str(pane.border_title).strip() for pane in drawn] == ["Training"]

    drive(work())


def test_the_command_palette_knows_screens_and_themes(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                await screens.reads("LEARNING")
                titles = [each.title for each in screens.app.get_system_commands(screens.app.screen)]
                assert titles[:2] == ["Open Overview", "Open Data"]
                assert {"Pause", "Colours: dark", "Colours: light", "Colours: 16", "Help", "Quit"} <= set(titles)
                await screens.press("colon", *"network")
                await screens.reads("Open Network")
                await screens.press("down", "enter")
                await screens.reads("round trip 23 ms")

    drive(work())


@pytest.mark.parametrize("theme", ["dark", "light", "16"])
def test_each_theme_shows_the_same_words(daemon: ScriptedDaemon, theme: str) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path, theme=theme) as screens:
                assert screens.app.theme == themes.NAMES[theme]
                await screens.reads("LEARNING", "#42 accepted", "Needs you")

    drive(work())


def test_without_colours_the_same_words(daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path) as screens:
                assert screens.app.no_color
                await screens.reads("LEARNING", "link ok", "Needs you")

    drive(work())


def test_ascii_glyphs_draw_ascii(daemon: ScriptedDaemon) -> None:
    async def work() -> None:
        with daemon.up():
            async with attached(daemon.path, glyphs="ascii") as screens:
                for key in "odtm":
                    await screens.press(key)
                    said = await screens.reads("press-07")
                    assert said.isascii(), said
                for key, words in (("question_mark", "Help: Model"), ("p", "Pause training"), ("colon", "Open Data")):
                    await screens.press(key)
                    said = await screens.reads(words)
                    assert said.isascii(), said
                    await screens.press("escape")

    drive(work())


# -- pictures --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_state(daemon: ScriptedDaemon, state: str) -> Iterator[str]:
    """The daemon in one of four states; gives words that show that the screen is there."""
    if state == "disconnected":
        yield "no daemon answers"
        return
    if state == "alerting":
        daemon.say(
            state="needs attention",
            detail="train_FD001.txt.gz: there is no column 26; mend columns.s21 in node.toml",
            connected=False,
            link_up_s=None,
            link="down: the broker closed the connection",
            outbox=2,
            data={**REPORT, "dropped_rows": {"text in vib_z": 25}},
        )
        daemon.outbox = (waiting(43, has_left=True, chunks=2), waiting(44, has_left=False))
    with daemon.up():
        yield {"training": "LEARNING", "alerting": "link down", "read-only": "read-only"}[state]


@pytest.mark.parametrize("look", ["dark", "light", "no colour"])
@pytest.mark.parametrize("state", ["training", "alerting", "read-only", "disconnected"])
def test_every_screen_looks_as_it_was_drawn(
    daemon: ScriptedDaemon, state: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture for all looks, since nothing is said by colour alone."""
    if look == "no colour":
        monkeypatch.setenv("NO_COLOR", "1")
    theme = "light" if look == "light" else "dark"
    found = ""

    async def work() -> None:
        nonlocal found
        with in_state(daemon, state) as sign:
            async with attached(daemon.path, (80, 24), theme=theme, read_only=state == "read-only") as screens:
                await screens.reads(sign)
                found = await drawn(screens, state, "odtmnl")

    drive(work())
    assert_as_drawn(found, PICTURES / f"{state}.txt")


def test_the_app_stays_thin() -> None:
    source = Path(NodeApp.__module__.replace(".", "/") + ".py")
    root = Path(__file__).resolve().parents[3]
    assert len((root / source).read_text(encoding="utf-8").splitlines()) < 250
