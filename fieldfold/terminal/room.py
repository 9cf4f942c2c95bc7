"""One screen of a terminal app: a header line, a body of panes and lists, and a footer with what is possible here."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.screen import Screen

from fieldfold.terminal.items import Items
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane, View
from fieldfold.terminal.reading import Reading
from fieldfold.terminal.words import Words


class Room(Screen[None]):
    """What it shows comes in by `show`; it holds no connection and asks nobody.

    Attributes:
        NAME: of the screen, as the footer says it; ROOM: as the app calls it.
        HAS_LIST: whether there is something to find in.
        WANTS: views that the daemon is asked for while the screen is open.
        ABOUT: what the screen shows and what its words mean, for its help.
    """

    NAME: ClassVar[str]
    ROOM: ClassVar[str]
    HAS_LIST: ClassVar[bool] = True
    WANTS: ClassVar[frozenset[str]] = frozenset()
    ABOUT: ClassVar[str] = ""
    AUTO_FOCUS: ClassVar[str | None] = "Items"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-usual"), (110, "-wide")]  # noqa: RUF012 - as textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (18, "-high"), (32, "-tall")]  # noqa: RUF012
    DEFAULT_CSS: ClassVar[str] = """
    Room { layout: vertical; overflow: hidden; }
    Room .header { height: 1; text-style: bold; background: $surface; }
    Room .keys { height: 1; dock: bottom; background: $surface; }
    Room .body { height: 1fr; }
    Room .brief { display: none; }
    Room.-tiny .body, Room.-low .body { display: none; }
    Room.-tiny .brief, Room.-low .brief { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", show=False),
        Binding("f", "follow", "Follow", show=False),
        Binding("c,y", "copy", "Copy", show=False),
    ]

    class Opened(Message):
        """The screen has come to the front."""

        def __init__(self, room: Room) -> None:
            super().__init__()
            self.room = room

    @abstractmethod
    def header(self, snapshot: Any, width: int, height: int) -> Words:
        """The first line."""

    @abstractmethod
    def keys(self, snapshot: Any, width: int, height: int) -> Words:
        """The last line."""

    @abstractmethod
    def brief(self, snapshot: Any, width: int, height: int) -> Words:
        """All there is where there is no room for the body."""

    @abstractmethod
    def body(self) -> ComposeResult:
        """Panes and lists."""

    def compose(self) -> ComposeResult:
        """Header, body or brief, footer."""
        yield _bare(self.header, "header")
        yield _bare(self.brief, "brief")
        with Container(classes="body"):
            yield from self.body()
        yield KeyLine(self.keys)

    def on_screen_resume(self) -> None:
        """Says that it wants to be shown something."""
        self.post_message(self.Opened(self))

    def show(self, snapshot: Any) -> None:
        """Every part takes what concerns it."""
        for part in self.query("Pane, Listing"):
            if isinstance(part, Pane | Listing):
                part.show(snapshot)

    @property
    def listing(self) -> Listing | None:
        """The list of this screen, if it has one."""
        return next(iter(self.query(Listing)), None)

    @property
    def plain(self) -> str:
        """What the panes say, for the clipboard."""
        said = [f"{pane.border_title or ''}\n{pane.plain}".strip() for pane in self.query(".body Pane").results(Pane)]
        return "\n\n".join(said)

    # -- keys --

    def action_find(self) -> None:
        """Filters the list."""
        if self.listing is not None:
            self.listing.find()

    def action_follow(self) -> None:
        """Stays at the newest row, or no longer."""
        if self.listing is not None:
            self.listing.follow()
            self.notify("following" if self.listing.follows else "standing still")

    def action_copy(self) -> None:
        """The highlighted row, or all that the panes say, to the clipboard of whoever sits there (OSC 52)."""
        listing = self.listing
        copied = listing.current if listing is not None and isinstance(self.focused, Items) else self.plain
        if copied:
            self.app.copy_to_clipboard(copied)
            self.notify("copied")

    @abstractmethod
    def action_help(self) -> None:
        """What the screen shows, and all keys."""

    def open_help(self, keys: str) -> None:
        """Shows both."""
        self.app.push_screen(Reading(f"Help: {self.NAME}", f"{self.ABOUT}\n\n{keys}"))


class KeyLine(Pane):
    """The footer; a click on a key and its word is that key."""

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.add_class("keys")

    async def on_click(self, event: events.Click) -> None:
        """Presses the key under the pointer."""
        offset = event.get_content_offset(self)
        if offset is not None and (key := key_at(self.plain, offset.x)):
            self.app.simulate_key({"/": "slash", "?": "question_mark"}.get(key, key))


def key_at(said: str, column: int) -> str:
    """The key that stands at a column of the footer, or whose word does; empty where none does."""
    place = 0
    for entry in said.split("  "):
        key, _, _ = entry.rpartition(" ") if entry.endswith(" Screens") else entry.partition(" ")
        if place <= column < place + len(entry):
            one = len(key) > 1 and " " in key
            return key[column - place : column - place + 1].strip() if one else key
        place += len(entry) + 2
    return ""


def _bare(view: View, name: str) -> Pane:
    pane = Pane(view)
    pane.add_class(name)
    return pane
