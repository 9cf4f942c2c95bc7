"""Rows of one line each: only those in sight are drawn, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from fieldfold.terminal.pane import changed, strip_of
from fieldfold.terminal.words import Line, line


class Items(ScrollView, can_focus=True):
    """Moves by arrows and by j and k.

    Attributes:
        rows: what is there.
        highlighted: place of the row that keys work on; None where there is none.
        drawn: how often something was drawn.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "to(0)", show=False),
        Binding("end,G", "to(-1)", show=False),
        Binding("enter", "choose", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"row", "row-highlighted"}
    DEFAULT_CSS: ClassVar[str] = """
    Items { background: $background; scrollbar-size-vertical: 1; overflow-x: hidden; }
    Items > .row { color: $foreground; background: $background; }
    Items > .row-highlighted { background: $panel; }
    Items:focus > .row-highlighted { background: $primary 30%; text-style: bold; }
    Items:ansi > .row-highlighted { text-style: reverse; }
    """

    class Chosen(Message):
        """Enter, or a click on the highlighted row."""

    class Moved(Message):
        """A person has gone to another row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Sequence[Line] = ()
        self.highlighted: int | None = None
        self.drawn = 0
        self._empty = ""

    def put(self, rows: Sequence[Line], highlighted: int | None, empty: str = "") -> None:
        """Shows these rows; `empty` where there are none."""
        before, self.rows, self._empty = self.rows, rows, empty
        was, self.highlighted = self.highlighted, highlighted if rows else None
        if len(before) != len(rows):
            self.virtual_size = Size(self.size.width, len(rows))
        self.drawn += 1
        if len(before) != len(rows) or not rows:
            self.refresh()
        else:
            top, bottom = self.scroll_offset.y, self.scroll_offset.y + self.size.height
            width = self.scrollable_content_region.width
            for place in range(top, min(bottom, len(rows))):
                if place in (was, self.highlighted) and was != self.highlighted:
                    self._refresh_row(place)
                elif rows[place] != before[place]:
                    former, present = line(" ", *before[place]), line(" ", *rows[place])
                    self.refresh(changed(former, present, place - top, width))
        if was != self.highlighted:
            self._keep_in_sight()

    def render_line(self, y: int) -> Strip:
        """One row in sight."""
        place = self.scroll_offset.y + y
        width = self.scrollable_content_region.width
        row = self.rows[place] if place < len(self.rows) else ()
        if not self.rows and y == 0:
            row = line((self._empty, "dim"))
        marked = place == self.highlighted and bool(self.rows)
        style = self.get_visual_style("row", "row-highlighted") if marked else self.get_visual_style("row")
        return strip_of(self, line(" ", *row), width, style)

    def go(self, place: int) -> None:
        """Highlights the row at a place, as near as there is one."""
        if not self.rows:
            return
        before, self.highlighted = self.highlighted, max(0, min(place, len(self.rows) - 1))
        if before == self.highlighted:
            return
        for each in (before, self.highlighted):
            if each is not None:
                self._refresh_row(each)
        self._keep_in_sight()

    def _refresh_row(self, place: int) -> None:
        self.refresh(Region(0, place - self.scroll_offset.y, self.size.width, 1))

    def _keep_in_sight(self) -> None:
        if self.highlighted is not None:
            self.scroll_to_region(
                Region(0, self.highlighted, 1, 1), animate=False, force=True, immediate=True, x_axis=False
            )

    # -- keys and the mouse --

    def _go_to(self, place: int) -> None:
        self.go(place)
        self.post_message(self.Moved())

    def action_move(self, by: int) -> None:
        """So many rows on."""
        self._go_to((self.highlighted or 0) + by)

    def action_page(self, by: int) -> None:
        """So many screens on."""
        self._go_to((self.highlighted or 0) + by * max(1, self.size.height - 1))

    def action_to(self, place: int) -> None:
        """The first row, or the last."""
        self._go_to(place if place >= 0 else len(self.rows) + place)

    def action_choose(self) -> None:
        """Opens the highlighted row."""
        if self.highlighted is not None:
            self.post_message(self.Chosen())

    def on_click(self, event: events.Click) -> None:
        """Highlights the row under the pointer; a second click opens it."""
        place = self.scroll_offset.y + event.y
        if place >= len(self.rows):
            return
        if place == self.highlighted:
            self.action_choose()
        self._go_to(place)
