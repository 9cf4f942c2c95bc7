"""The first run: keys, and from nothing to a training node at a real Mosquitto, in a real tmux."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from broker_config.invite import Guest, invite
from fieldfold.terminal.reading import Question, Reading
from node_app import starting
from node_app.config import load
from node_app.setup.answers import Answers
from node_app.setup.checks import Finding
from node_app.tui.app import NodeApp
from node_app.tui.setup.app import SetupApp
from tests.broker.loop import LoopFleet
from tests.node_app.turbofan import bundle_file
from tests.terminal.screens import SIZES, assert_as_drawn, drive, shown, text_of
from tests.terminal.tmux import Tmux, end_daemon, until

NODE, INVITED = "gateway-01", "gateway-09"
DATA = Path(__file__).resolve().parents[3] / "examples/turbofan/data/train_FD001.txt.gz"
COLUMNS = " ".join(f"s{number}={number + 5}" for number in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21))
TYPED = {
    "name": "press-07",
    "url": "mqtt://127.0.0.1:1",
    "federation": "plant",
    "files": "*.csv",
}


def looked(answers: Answers, base: Path) -> Iterator[Finding]:
    """Everything works but a broker at port 1."""
    yield Finding(ok=True, words=f"{answers.name} in the federation {answers.federation}")
    if answers.url.endswith(":1"):
        yield Finding(ok=False, words="the broker is not reached: connection refused; look at its address")
    else:
        yield Finding(ok=True, words=f"{answers.url} answers; {base.name}")


@asynccontextmanager
async def first_run(target: Path) -> Any:
    app = SetupApp(target, look=looked)
    async with app.run_test(size=(80, 24)) as pilot:
        yield app, pilot


async def fill(app: SetupApp, pilot: Pilot[Path], **typed: str) -> None:
    for name, words in typed.items():
        field = app.form.query_one(f"#{name}", Input)
        field.focus()
        field.value = ""
        await pilot.press(*words)


async def reads(app: SetupApp, pilot: Pilot[Path], *words: str) -> None:
    while not all(word in str(app.form.query_one("#found", Static).content) for word in words):
        await pilot.pause(0.02)


def test_each_step_is_tested_and_then_the_file_is_written(tmp_path: Path) -> None:
    async def work() -> None:
        async with first_run(tmp_path / "node.toml") as (app, pilot):
            await fill(app, pilot, **TYPED)
            await pilot.press("enter")
            await reads(app, pilot, "ok  press-07 in the federation plant", "!   the broker is not reached")
            await fill(app, pilot, url="mqtt://127.0.0.1:1883")
            await pilot.press("enter")
            await reads(app, pilot, "all of it works: ctrl+s writes node.toml")
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert app.return_value == tmp_path / "node.toml"

    drive(work())
    assert load(tmp_path / "node.toml").broker.url == "mqtt://127.0.0.1:1883"


def test_what_does_not_work_is_written_only_after_asking(tmp_path: Path) -> None:
    async def work() -> None:
        async with first_run(tmp_path / "node.toml") as (app, pilot):
            await fill(app, pilot, **TYPED)
            await pilot.press("ctrl+s")
            assert isinstance(app.screen, Question)
            await pilot.press("n")
            assert not (tmp_path / "node.toml").exists()
            await pilot.press("ctrl+s", "y")
            await pilot.pause()
            assert app.return_value == tmp_path / "node.toml"

    drive(work())


def test_a_file_that_is_there_is_not_overwritten_and_nonsense_not_written(tmp_path: Path) -> None:
    async def work() -> None:
        async with first_run(tmp_path / "node.toml") as (app, pilot):
            await pilot.press("ctrl+s", "y")
            await reads(app, pilot, "!   ")
            assert not (tmp_path / "node.toml").exists()
            (tmp_path / "node.toml").write_text("precious", encoding="utf-8")
            await fill(app, pilot, **TYPED)
            await pilot.press("ctrl+s", "y")
            await reads(app, pilot, "File exists")
            assert (tmp_path / "node.toml").read_text(encoding="utf-8") == "precious"

    drive(work())


def test_tab_goes_through_the_lines_and_f1_helps(tmp_path: Path) -> None:
    async def work() -> None:
        async with first_run(tmp_path / "node.toml") as (app, pilot):
            seen = []
            for _ in range(8):
                assert app.focused is not None
                seen.append(app.focused.id)
                await pilot.press("tab")
            assert seen == ["identity", "name", "url", "federation", "files", "series", "order", "columns"]
            await pilot.press("f1")
            assert isinstance(app.screen, Reading)
            await pilot.press("escape", "ctrl+c")
        assert app.return_value is None

    drive(work())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("look", ["dark", "light", "no colour"])
def test_the_form_looks_as_it_was_drawn(tmp_path: Path, look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if look == "no colour":
        monkeypatch.setenv("NO_COLOR", "1")
    found = ""

    async def work() -> None:
        nonlocal found
        for columns, rows in SIZES:
            app = SetupApp(tmp_path / "node.toml", look=looked, theme="light" if look == "light" else "dark")
            async with app.run_test(size=(columns, rows)) as pilot:
                await pilot.pause()
                found += f"{columns} by {rows}, empty\n{text_of(app)}\n\n"
                await fill(app, pilot, **TYPED)
                await pilot.press("enter")
                while "address" not in text_of(app):  # the last word: it was scrolled there
                    await pilot.pause(0.02)
                found += f"{columns} by {rows}, tested\n{text_of(app)}\n\n"

    drive(work())
    assert_as_drawn(found, Path(__file__).parent / "pictures" / "first-run.txt")


async def paste(app: SetupApp, pilot: Pilot[Path], words: str) -> None:
    field = app.form.query_one("#identity", Input)
    field.focus()
    field.post_message(events.Paste(words))
    await pilot.pause()


def test_what_is_no_whole_code_is_said(tmp_path: Path) -> None:
    async def work() -> None:
        app = SetupApp(tmp_path / "node.toml")
        async with app.run_test(size=(80, 24)) as pilot:
            await paste(app, pilot, "fieldfold1-abcdef")
            await pilot.press("enter")
            await reads(app, pilot, "the invitation's code is damaged or not whole")
            await pilot.press("ctrl+s", "y")
            await pilot.pause()
            assert app.return_value is None

    drive(work())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(400)
def test_from_an_invitations_code_to_a_training_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, socket = tmp_path / "gateway", tmp_path / "s"
    here.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(socket))

    async def answer(code: str) -> None:
        app = SetupApp(here / "node.toml")
        async with app.run_test(size=(80, 24)) as pilot:
            await paste(app, pilot, f"{code[:70]}\r\n{code[70:]}\n")
            line = app.form.query_one("#identity", Input)
            assert line.password, "a code is nobody else's to read"
            assert [app.form.query_one(f"#{name}", Input).value for name in ("name", "federation")] == [
                INVITED,
                "turbofan",
            ]
            await fill(app, pilot, files=str(DATA), series="1", order="2", columns=COLUMNS)
            await pilot.press("ctrl+s", "y")
            await reads(app, pilot, "the invitation was not used yet")
            await pilot.press("enter")
            await reads(
                app, pilot, f"the code invites {INVITED}", "enrolled: the key was made here", "all of it works"
            )
            await pilot.press("enter")
            await reads(app, pilot, "all of it works")
            assert "enrolled:" not in str(app.form.query_one("#found", Static).content), "a code is good once"
            await pilot.press("ctrl+s")
            await pilot.pause()
            assert app.return_value == here / "node.toml"

    async def look() -> None:
        async with shown(NodeApp(socket / "node.sock")) as screens:
            await screens.reads(INVITED, "link ok", "steps/s", " accepted, 0 rejected")

    with LoopFleet(tmp_path / "fleet", bundle_file(), {NODE: (3, 5, 8, 13)}, {NODE: 40.0}) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        fleet.until(lambda status: status["term"] > 0, "the aggregator does not keep the federation")
        drive(answer(invite(fleet.folder / "broker", Guest(INVITED, "turbofan"), timedelta(hours=1))))
        assert load(here / "node.toml").name == INVITED
        assert {path.name for path in here.iterdir()} == {"identity", "node.toml"}
        try:
            starting.start(here / "node.toml")
            drive(look())
        finally:
            end_daemon(socket / "node.sock")


@pytest.mark.timeout(400)
def test_from_nothing_to_a_training_node(tmp_path: Path) -> None:
    with LoopFleet(tmp_path / "fleet", bundle_file(), {NODE: (3, 5, 8, 13)}, {NODE: 40.0}) as fleet:
        fleet.start_broker()
        fleet.start_aggregator()
        fleet.until(lambda status: status["term"] > 0, "the aggregator does not keep the federation")
        here = tmp_path / "gateway"
        here.mkdir()
        typed = {
            "invitation": str(fleet.folder / "broker" / "identities" / NODE),
            "name": "",
            "broker": f"mqtts://localhost:{fleet.link_config.url.rpartition(':')[2]}",
            "federation": "turbofan",
            "data files": str(DATA),
            "series column": "1",
            "order column": "2",
            "columns": COLUMNS,
        }
        socket = tmp_path / "s"
        socket.mkdir()
        start = f"cd {here} && RUNTIME_DIRECTORY={socket} {sys.executable} -m fieldfold node"
        tmux = Tmux(tmp_path / "tmux", f"sh -c '{start}'")
        try:
            tmux.reads("first run", "invitation")
            for words in typed.values():
                tmux.type(words)
                tmux.press("Tab")
            tmux.press("Enter")
            tmux.reads("the certificate is that of gateway-01", "all of it works")
            tmux.press("C-s")
            tmux.reads(NODE, "link ok", "steps/s")
            assert load(here / "node.toml").name == NODE
            tmux.press("q")
            until(lambda: not tmux.is_there, "q does not leave")
        finally:
            tmux.end()
            if (socket / "node.sock").exists():
                end_daemon(socket / "node.sock")
