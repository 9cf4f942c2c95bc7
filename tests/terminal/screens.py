"""An app under a pilot: keys are pressed, and what is to be read is waited for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

from fieldfold.terminal.app import Guest

AT = 1_763_900_000.0
"""Seconds since 1970: when everything in a script happened."""
PATIENCE_S = 50.0
SIZES = [(40, 12), (80, 24), (120, 40)]
A = TypeVar("A", bound=Guest[Any])


class Screens(Generic[A]):
    """The app under a pilot: presses keys, and waits for what is to be read."""

    def __init__(self, app: A, pilot: Pilot[None]) -> None:
        self.app, self._pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()

    async def click(self, column: int, row: int) -> None:
        await self._pilot.click(offset=(column, row))
        await self._pilot.pause()

    async def resize(self, columns: int, rows: int) -> None:
        await self._pilot.resize_terminal(columns, rows)
        await self._pilot.pause()

    async def pass_by(self, looks: int) -> None:
        """Lets so many snapshots arrive."""
        until = self.app.heard + looks
        deadline = time.monotonic() + PATIENCE_S
        while self.app.heard < until:
            assert time.monotonic() < deadline, "the daemon says nothing"
            await self._pilot.pause(0.02)

    async def settled(self) -> str:
        """What stands there once the daemon has been heard twice more."""
        await self.pass_by(2)
        return self.text

    @property
    def shown(self) -> Screen[Any]:
        """The screen in front, a question or a text to read among them."""
        return self.app.screen

    @property
    def room(self) -> str:
        """The screen that is open."""
        assert self.app.room is not None
        return self.app.room.ROOM

    @property
    def text(self) -> str:
        """What stands on the screen, as somebody reads it."""
        return text_of(self.app)

    async def reads(self, *words: str) -> str:
        """Waits until all the words stand there."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(word in self.text for word in words):
            assert time.monotonic() < deadline, f"{words} did not come up:\n{self.text}"
            await self._pilot.pause(0.02)
        return self.text

    async def reads_no(self, word: str) -> str:
        """Waits until a word has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while word in self.text:
            assert time.monotonic() < deadline, f"{word!r} did not go:\n{self.text}"
            await self._pilot.pause(0.02)
        return self.text


def text_of(app: App[Any]) -> str:
    """What stands on the screen, as somebody reads it."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def drawn(screens: Screens[Any], state: str, keys: Sequence[str]) -> str:
    """Each screen that these keys open, at each size; text, not SVG, since that reads in a diff."""
    found = ""
    for columns, rows in SIZES:
        await screens.resize(columns, rows)
        for key in keys:
            await screens.press(key)
            found += f"{state}, {columns} by {rows}, {screens.room}\n{await screens.settled()}\n\n"
    return found


def assert_as_drawn(found: str, picture: Path) -> None:
    """FIELDFOLD_DRAW=1 draws the picture anew."""
    if os.environ.get("FIELDFOLD_DRAW"):
        picture.write_text(found, encoding="utf-8")
    assert found == picture.read_text(encoding="utf-8")


@asynccontextmanager
async def shown(app: A, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screens[A]]:
    """The app in a terminal of `size`; notices stay as long as a test waits."""
    app.NOTIFICATION_TIMEOUT = PATIENCE_S  # type: ignore[misc]
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Screens(app, pilot)


def drive(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test that presses keys."""
    asyncio.run(work)
