"""The app: keys, screens and commands. What is decided and worded is elsewhere, in pure functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import msgspec
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from fieldfold.terminal import themes
from fieldfold.terminal.glyphs import Glyphs
from fieldfold.terminal.reading import Question
from fieldfold.terminal.room import Room
from node_app.tui import frame
from node_app.tui.attachment import EVERY_S, Attachment
from node_app.tui.data.screen import Data
from node_app.tui.log.screen import Log
from node_app.tui.model.screen import Model
from node_app.tui.network.screen import Network
from node_app.tui.overview.screen import Overview
from node_app.tui.room import NodeRoom
from node_app.tui.snapshot import Snapshot
from node_app.tui.training.screen import Training

PAUSE = "Pause training on {node}? The model is followed all the same, and what waits is still sent."


class Told(Message):
    """The attachment has heard something; only the newest counts."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        """A newer picture makes the one before it worthless."""
        return isinstance(message, Told)


class Answered(Message):
    """What came of a command."""

    def __init__(self, words: str, *, done: bool) -> None:
        super().__init__()
        self.words, self.done = words, done


class NodeApp(App[None]):
    """The screens of one node.

    Args:
        socket: of the daemon; it may come and go.
        read_only: gives up commands, at the daemon.
        theme: one of themes.NAMES.

    Attributes:
        snapshot: the newest picture.
        heard: how many there were.
    """

    TITLE = "fieldfold"
    CSS = themes.ASCII_CSS
    SCREENS: ClassVar[dict[str, Callable[[], Screen[None]]]] = {
        "overview": Overview,
        "data": Data,
        "training": Training,
        "model": Model,
        "network": Network,
        "log": Log,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, f"go('{name}')", words, show=False) for name, (key, words) in frame.ROOMS.items()),
        Binding("tab,right", "step(1)", "Next screen", show=False, priority=True),
        Binding("shift+tab,left", "step(-1)", "Screen before", show=False, priority=True),
        Binding("h", "step(-1)", show=False),
        Binding("p", "pause", "Pause or go on", show=False),
        Binding("question_mark", "help", "Help", show=False),
        Binding("colon", "command_palette", "Commands", show=False),
        Binding("q", "quit", "Quit", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(  # noqa: PLR0913 - each is a choice of whoever starts it
        self,
        socket: Path,
        *,
        read_only: bool = False,
        theme: str = "dark",
        glyphs: Glyphs = "braille",
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        themes.register(self)
        self.theme = themes.NAMES[theme]
        self._glyphs = glyphs
        self.heard = 0
        self.snapshot = Snapshot(glyphs=glyphs)
        self.attachment = Attachment(
            socket,
            read_only=read_only,
            tell=lambda snapshot: self.post_message(Told(snapshot)),
            answer=lambda words, done: self.post_message(Answered(words, done=done)),
            every_s=every_s,
            clock=clock,
        )

    def on_mount(self) -> None:
        """Opens the overview and begins asking."""
        self.set_class(self._glyphs == "ascii", "-ascii")
        self.action_go("overview")
        self.attachment.start()

    def on_unmount(self) -> None:
        """Hangs up."""
        self.attachment.stop()

    # -- what is heard --

    def on_told(self, message: Told) -> None:
        """Shows the newest picture on the screen that is open."""
        self.heard += 1
        self.snapshot = msgspec.structs.replace(message.snapshot, glyphs=self._glyphs)
        if (room := self.room) is not None:
            room.show(self.snapshot)

    def on_answered(self, message: Answered) -> None:
        """Says what came of a command, and lets the next look show it."""
        self.notify(message.words, severity="information" if message.done else "error", markup=False)

    @property
    def room(self) -> NodeRoom | None:
        """The screen that is open, perhaps under a question."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, NodeRoom)), None)

    # -- keys --

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - textual's
        """Over a question, keys answer the question; in the line of a filter, arrows and tab are the line's."""
        if action in {"go", "step", "pause", "help"} and not isinstance(self.screen, NodeRoom):
            return False
        return not (action == "step" and self.focused is not None and self.focused.id == "filter")

    def action_go(self, name: str) -> None:
        """Opens a screen."""
        room = self.room
        if room is None:
            self.push_screen(name)
        elif name != room.ROOM:
            self.switch_screen(name)

    def action_step(self, by: int) -> None:
        """The next screen, or the one before."""
        names = list(frame.ROOMS)
        room = self.room
        self.action_go(names[(names.index(room.ROOM) + by) % len(names)] if room is not None else names[0])

    def on_room_opened(self, message: Room.Opened) -> None:
        """A screen has come to the front: it shows what is known, and the daemon is asked for what it wants."""
        self.attachment.want(message.room.WANTS)
        message.room.show(self.snapshot)

    def action_help(self) -> None:
        """Help for the open screen."""
        if self.room is not None:
            self.room.action_help()

    def action_pause(self) -> None:
        """Pauses after asking, or goes on at once; the daemon decides whether this connection may."""
        status, rights = self.snapshot.status, self.snapshot.rights
        if not rights.may_command:
            self.notify(rights.why_not, severity="warning", markup=False)
        elif status is not None and status.state in {"paused", "needs attention"}:
            self.attachment.command("resume")
        elif status is not None:
            self.push_screen(Question(PAUSE.format(node=status.node)), self._pause_if)

    def _pause_if(self, agreed: bool | None) -> None:  # noqa: FBT001 - textual's callback
        if agreed:
            self.attachment.command("pause")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002 - textual's
        """The palette: every screen, every command, every theme."""
        for name, (key, words) in frame.ROOMS.items():
            yield SystemCommand(f"Open {words}", f"key {key}", lambda name=name: self.action_go(name))
        if words := frame.pause_words(self.snapshot):
            yield SystemCommand(f"{words}", "key p", self.action_pause)
        for said, name in themes.NAMES.items():
            yield SystemCommand(f"Colours: {said}", "theme", lambda name=name: setattr(self, "theme", name))
        yield SystemCommand("Help", "key ?", self.action_help)
        yield SystemCommand("Quit", "key q; the daemon goes on", self.exit)
