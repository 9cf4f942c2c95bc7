"""A list that a person walks through, filters, follows and copies from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from fieldfold.terminal.items import Items
from fieldfold.terminal.reading import Reading
from fieldfold.terminal.words import Line, text

Rows: TypeAlias = Callable[[Any, int], Sequence[Line]]
"""(snapshot, columns) -> one line an item."""
Heading: TypeAlias = Callable[[Any, int], str]
Keys: TypeAlias = Callable[[Any], Sequence[str]]
"""snapshot -> what each item is, in the order of the rows."""


class Listing(Vertical):
    """Rows out of a pure function of the snapshot.

    Args:
        heading: snapshot, columns -> the line above the rows.
        rows: pure.
        empty: what is said where there are none.
        follow: whether the newest row is last, and stays in sight until a person moves away from it.
        keys: pure; where it is given, the highlighted item stays highlighted wherever it goes, and enter says which
            one was chosen. Without it enter shows the whole row.
    """

    DEFAULT_CSS: ClassVar[str] = """
    Listing { height: 1fr; border-top: solid $panel; }
    Listing .heading { height: 1; padding: 0 1; text-style: bold; color: $primary; }
    Listing Items { height: 1fr; }
    Listing Input { display: none; height: 1; border: none; padding: 0 1; }
    Listing.filtering Input { display: block; }
    """

    class Chosen(Message):
        """A person wants to see an item."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(
        self,
        heading: Heading,
        rows: Rows,
        *,
        empty: str,
        follow: bool = False,
        keys: Keys | None = None,
    ) -> None:
        super().__init__()
        self._heading, self._rows, self._empty, self._keys = heading, rows, empty, keys
        self.follows = follow
        self._snapshot: Any = None
        self._shown: tuple[Line, ...] = ()
        self._known: tuple[str, ...] = ()
        self._drawn: tuple[object, ...] | None = None
        self._made: tuple[Any, int, tuple[Line, ...], tuple[str, ...]] | None = None
        self._filter = ""

    def compose(self) -> ComposeResult:
        """A heading, the rows, and a line to filter by."""
        yield Static("", classes="heading", markup=False)
        yield Items()
        yield Input(compact=True, id="filter")

    @property
    def _items(self) -> Items:
        return self.query_one(Items)

    def on_resize(self, _: events.Resize) -> None:
        """Rows have more room."""
        self.show(self._snapshot)

    def show(self, snapshot: Any) -> None:
        """Draws what is different; the highlighted item stays highlighted."""
        self._snapshot = snapshot
        width = self.size.width - 3  # padding on both sides, and the scroll bar
        if snapshot is None or width < 1:
            return
        rows, known = self._sought(snapshot, width)
        heading = self._heading(snapshot, width)
        if (rows, known, heading, self._filter) == self._drawn:
            return
        current, place = self.key, self._items.highlighted
        self._drawn, self._shown, self._known = (rows, known, heading, self._filter), rows, known
        self.query_one(".heading", Static).update(heading, layout=False)
        if self.follows:
            place = len(rows) - 1
        elif current in known:
            place = known.index(current)
        empty = f"nothing with {self._filter!r} in it" if self._filter else self._empty
        self._items.put(rows, max(0, min(place or 0, len(rows) - 1)), empty)

    def _sought(self, snapshot: Any, width: int) -> tuple[tuple[Line, ...], tuple[str, ...]]:
        """The rows that have what is looked for, and what they are; all rows are made once a snapshot."""
        if self._made is None or self._made[0] is not snapshot or self._made[1] != width:
            known = tuple(self._keys(snapshot)) if self._keys is not None else ()
            self._made = (snapshot, width, tuple(self._rows(snapshot, width)), known)
        _, _, rows, known = self._made
        sought = self._filter.lower()
        if not sought:
            return rows, known
        places = [place for place, row in enumerate(rows) if sought in text(row).lower()]
        return tuple(rows[place] for place in places), tuple(known[place] for place in places) if known else ()

    # -- what a person does --

    def find(self) -> None:
        """Opens the line to filter by."""
        self.add_class("filtering")
        self.query_one(Input).focus()

    def follow(self) -> None:
        """Goes to the newest row and stays there, or stays where it is."""
        self.follows = not self.follows
        if self.follows:
            self._items.go(len(self._shown) - 1)

    @property
    def current(self) -> str:
        """The highlighted row."""
        place = self._items.highlighted
        return text(self._shown[place]).strip() if place is not None and place < len(self._shown) else ""

    @property
    def key(self) -> str:
        """What the highlighted item is; empty where there is none."""
        place = self._items.highlighted
        return self._known[place] if place is not None and place < len(self._known) else ""

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
        """Escape shows all rows again."""
        if event.key == "escape" and self.has_class("filtering"):
            event.stop()
            self.query_one(Input).value = ""
            self.remove_class("filtering")
            self._items.focus()

    @on(Items.Moved)
    def _moved(self, event: Items.Moved) -> None:
        """Whoever looks back does not want to be taken away from there."""
        event.stop()
        self.follows = self.follows and self._items.highlighted == len(self._shown) - 1

    @on(Items.Chosen)
    def _read(self, event: Items.Chosen) -> None:
        """Says which item it is, or shows the whole row."""
        event.stop()
        if self._keys is not None:
            self.post_message(self.Chosen(self.key))
        elif current := self.current:
            self.app.push_screen(Reading("", current))
