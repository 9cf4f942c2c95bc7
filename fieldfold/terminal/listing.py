"""A list that a person walks through, filters, follows and copies from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from fieldfold.terminal.pane import content
from fieldfold.terminal.reading import Reading
from fieldfold.terminal.words import Line, text

Rows: TypeAlias = Callable[[Any, int], Sequence[Line]]
"""(snapshot, columns) -> one line an item."""


class Items(OptionList):
    """Moves by arrows and by j and k."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "first", show=False),
        Binding("G", "last", show=False),
    ]


class Listing(Vertical):
    """Rows out of a pure function of the snapshot.

    Args:
        heading: columns -> the line above the rows.
        rows: pure.
        empty: what is said where there are none.
        follow: whether the newest row is last, and stays in sight until a person moves away from it.
    """

    DEFAULT_CSS: ClassVar[str] = """
    Listing { height: 1fr; border-top: solid $panel; }
    Listing .heading { height: 1; padding: 0 1; text-style: bold; color: $primary; }
    Listing Items { height: 1fr; border: none; padding: 0; background: $background; scrollbar-size-vertical: 1; }
    Listing Items:focus { border: none; }
    Listing Items > .option-list--option { padding: 0 1; }
    Listing Items:ansi > .option-list--option-highlighted { text-style: reverse; }
    Listing Input { display: none; height: 1; border: none; padding: 0 1; }
    Listing.filtering Input { display: block; }
    """

    def __init__(self, heading: Callable[[int], str], rows: Rows, *, empty: str, follow: bool = False) -> None:
        super().__init__()
        self._heading, self._rows, self._empty = heading, rows, empty
        self.follows = follow
        self._snapshot: Any = None
        self._shown: tuple[Line, ...] = ()
        self._drawn: tuple[tuple[Line, ...], str] | None = None
        self._filter = ""

    def compose(self) -> ComposeResult:
        """A heading, the rows, and a line to filter by."""
        yield Static("", classes="heading", markup=False)
        yield Items(markup=False)
        yield Input(compact=True, id="filter")

    @property
    def _items(self) -> Items:
        return self.query_one(Items)

    def on_resize(self, _: events.Resize) -> None:
        """Rows have more room."""
        self.show(self._snapshot)

    def show(self, snapshot: Any) -> None:
        """Draws what is different; the highlighted row stays highlighted where it stands."""
        self._snapshot = snapshot
        width = self.size.width - 3  # padding on both sides, and the scroll bar
        if snapshot is None or width < 1:
            return
        sought = self._filter.lower()
        rows = tuple(row for row in self._rows(snapshot, width) if sought in text(row).lower())
        if (rows, sought) == self._drawn:
            return
        self._drawn = (rows, sought)
        self.query_one(".heading", Static).update(self._heading(width))
        place = self._items.highlighted
        fresh = rows[len(self._shown) :]
        if self._shown and fresh and rows[: len(self._shown)] == self._shown:
            self._items.add_options(self._options(fresh))
        else:
            empty = f"nothing with {self._filter!r} in it" if self._filter else self._empty
            self._items.set_options(self._options(rows) or [Option(empty, disabled=True)])
        self._shown = rows
        if rows and self.follows:
            self._items.highlighted = len(rows) - 1
        elif rows:
            self._items.highlighted = min(place or 0, len(rows) - 1)

    def _options(self, rows: Sequence[Line]) -> list[Option]:
        ascii_only = self.app.has_class("-ascii")
        return [Option(content((row,), ascii_only=ascii_only)) for row in rows]

    # -- what a person does --

    def find(self) -> None:
        """Opens the line to filter by."""
        self.add_class("filtering")
        self.query_one(Input).focus()

    def follow(self) -> None:
        """Goes to the newest row and stays there, or stays where it is."""
        self.follows = not self.follows
        if self.follows and self._shown:
            self._items.highlighted = len(self._shown) - 1

    @property
    def current(self) -> str:
        """The highlighted row."""
        place = self._items.highlighted
        return text(self._shown[place]).strip() if place is not None and place < len(self._shown) else ""

    @on(Input.Changed)
    def _filter_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._filter = event.value.strip()
        self.show(self._snapshot)

    @on(Input.Submitted)
    def _filter_kept(self, event: Input.Submitted) -> None:
        event.stop()
        self._items.focus()
        self.set_class(bool(self._filter), "filtering")

    def on_key(self, event: events.Key) -> None:
        """Escape shows all rows again; moving up ends following."""
        if event.key == "escape" and self.has_class("filtering"):
            event.stop()
            self.query_one(Input).value = ""
            self.remove_class("filtering")
            self._items.focus()
        elif event.key in {"up", "k", "pageup", "home", "g"}:
            self.follows = False

    @on(OptionList.OptionSelected)
    def _read(self, event: OptionList.OptionSelected) -> None:
        """Enter shows the whole row."""
        event.stop()
        if current := self.current:
            self.app.push_screen(Reading("", current))
