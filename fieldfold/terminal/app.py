"""What the apps of both programs share: rooms by their keys, questions, help, the palette, and the attachment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic

import msgspec
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.message import Message
from textual.screen import Screen

from fieldfold.terminal import themes
from fieldfold.terminal.attachment import EVERY_S, Attachment, P, Picture, Reader
from fieldfold.terminal.glyphs import Glyphs
from fieldfold.terminal.multiplexer import passed_on, to_clipboard
from fieldfold.terminal.reading import Question
from fieldfold.terminal.room import Room


class Told(Message):
    """The attachment has heard something; only the newest counts."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture

    def can_replace(self, message: Message) -> bool:
        """A newer picture makes the one before it worthless."""
        return isinstance(message, Told)


class Answered(Message):
    """What came of a command."""

    def __init__(self, words: str, *, done: bool) -> None:
        super().__init__()
        self.words, self.done = words, done


class Guest(App[None], Generic[P]):
    """The screens of a daemon; a program adds its rooms and its commands.

    Args:
        socket: of the daemon; it may come and go.
        reader: what is asked of it.
        empty: the picture before it has answered.
        read_only: gives up commands, at the daemon.
        theme: one of themes.NAMES.

    Attributes:
        ROOMS: screen -> its key and its name; the first is opened.
        ROOM_KEYS: actions that belong to the rooms, and not to a question or a text over them.
        snapshot: the newest picture.
        heard: how many there were.
    """

    TITLE = "fieldfold"
    CSS = themes.CSS
    ROOMS: ClassVar[Mapping[str, tuple[str, str]]] = {}
    ROOM_KEYS: ClassVar[frozenset[str]] = frozenset({"go", "step", "help"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,right", "step(1)", "Next screen", show=False, priority=True),
        Binding("shift+tab,left", "step(-1)", "Screen before", show=False, priority=True),
        Binding("h", "step(-1)", show=False),
        Binding("question_mark", "help", "Help", show=False),
        Binding("colon", "command_palette", "Commands", show=False),
        Binding("q", "quit", "Quit", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(  # noqa: PLR0913 - each is a choice of whoever starts it
        self,
        socket: Path,
        *,
        reader: Reader[P],
        empty: P,
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
        self.snapshot: P = msgspec.structs.replace(empty, glyphs=glyphs)
        self.attachment: Attachment[P] = Attachment(
            socket,
            reader=reader,
            empty=self.snapshot,
            read_only=read_only,
            tell=lambda picture: self.post_message(Told(picture)),
            answer=lambda words, done: self.post_message(Answered(words, done=done)),
            every_s=every_s,
            clock=clock,
        )

    def on_mount(self) -> None:
        """Opens the first room and begins asking."""
        self.set_class(self._glyphs == "ascii", "-ascii")
        for name, (key, words) in self.ROOMS.items():
            self.bind(key, f"go('{name}')", description=words, show=False)
        self.action_go(next(iter(self.ROOMS)))
        self.attachment.start()

    def on_unmount(self) -> None:
        """Hangs up."""
        self.attachment.stop()

    # -- what is heard --

    def on_told(self, message: Told) -> None:
        """Shows the newest picture on the screen that is open."""
        self.heard += 1
        self.snapshot = self.adjusted(message.picture)  # type: ignore[arg-type]
        if (room := self.room) is not None:
            room.show(self.snapshot)

    def adjusted(self, picture: P) -> P:
        """The picture with what only the app knows."""
        return picture

    def on_answered(self, message: Answered) -> None:
        """Says what came of a command, and lets the next look show it."""
        self.notify(message.words, severity="information" if message.done else "error", markup=False)

    @property
    def room(self) -> Room | None:
        """The screen that is open, perhaps under a question."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, Room)), None)

    def copy_to_clipboard(self, text: str) -> None:
        """Through GNU screen too."""
        self._clipboard = text
        if self._driver is not None:
            self._driver.write(passed_on(to_clipboard(text), os.environ))

    # -- keys --

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - textual's
        """Over a question, keys answer the question; in the line of a filter, arrows and tab are the line's."""
        if action in self.ROOM_KEYS and not isinstance(self.screen, Room):
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
        names = list(self.ROOMS)
        at = names.index(self.room.ROOM) if self.room is not None and self.room.ROOM in names else 0
        self.action_go(names[(at + by) % len(names)])

    def on_room_opened(self, message: Room.Opened) -> None:
        """A screen has come to the front: it shows what is known, and the daemon is asked for what it wants."""
        self.attachment.want(message.room.WANTS)
        message.room.show(self.snapshot)

    def action_command_palette(self) -> None:
        """Every command by name."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="find a screen, a command, colours"))

    def action_help(self) -> None:
        """Help for the open screen."""
        if self.room is not None:
            self.room.action_help()

    # -- commands --

    def may_command(self) -> bool:
        """Whether a command would be carried out; says why where it would not."""
        rights = self.snapshot.rights
        if not rights.may_command:
            self.notify(rights.why_not, severity="warning", markup=False)
        return rights.may_command

    def ask_first(self, question: str, command: str, **arguments: Any) -> None:
        """Has the daemon carry out a command if a person says yes; the daemon decides whether this connection may."""

        def answered(agreed: bool | None) -> None:  # noqa: FBT001 - textual's callback
            if agreed:
                self.attachment.command(command, **arguments)

        if self.may_command():
            self.push_screen(Question(question), answered)

    def commands(self) -> Iterable[SystemCommand]:
        """What the program adds to the palette."""
        return ()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002 - textual's
        """The palette: every screen, every command, every theme."""
        for name, (key, words) in self.ROOMS.items():
            yield SystemCommand(f"Open {words}", f"key {key}", lambda name=name: self.action_go(name))
        yield from self.commands()
        for said, name in themes.NAMES.items():
            yield SystemCommand(f"Colours: {said}", "theme", lambda name=name: setattr(self, "theme", name))
        yield SystemCommand("Help", "key ?", self.action_help)
        yield SystemCommand("Quit", "key q; the daemon goes on", self.exit)
