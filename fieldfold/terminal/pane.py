"""A pane shows what a pure function makes of a snapshot, and draws only when that has changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any, ClassVar, Final, TypeAlias

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from fieldfold.terminal.words import Line, Role, Words, cut, difference, lines_of, text

View: TypeAlias = Callable[[Any, int, int], Words]
"""(snapshot, columns, rows) -> what is shown there."""
STYLES: Final[dict[Role, str]] = {
    "": "",
    "dim": "dim",
    "strong": "bold",
    "good": "$success",
    "warn": "bold $warning",
    "bad": "bold $error",
    "key": "bold $accent",
}


_IN_ASCII: Final = {ord("…"): "~", ord("°"): " "}


def content(words: tuple[Line, ...], *, ascii_only: bool = False) -> Content:
    """Lines with their roles as styles of the theme."""
    joined: list[str | tuple[str, str]] = []
    for number, each in enumerate(words):
        if number:
            joined.append("\n")
        joined.extend((piece.translate(_IN_ASCII) if ascii_only else piece, STYLES[role]) for piece, role in each)
    return Content.assemble(*joined)


def strip_of(widget: Widget, shown: Line, width: int, style: Style) -> Strip:
    """A line as the terminal gets it, `width` columns wide."""
    drawn = content((cut(shown, width),), ascii_only=widget.app.has_class("-ascii"))
    strips = Visual.to_strips(widget, drawn, max(width, drawn.cell_length), 1, style)
    return (strips[0] if strips else Strip([])).adjust_cell_length(width, style.rich_style)


def changed(before: Line, after: Line, row: int, width: int) -> Region:
    """What of a row is to be sent again; all of it where a character is wider than a column."""
    first, last = difference(cut(before, width), cut(after, width))
    if any(cell_len(text(each)) != len(text(each)) for each in (before, after)):
        first, last = 0, width
    return Region(first, row, last - first, 1)


class Pane(Widget):
    """One view; of what it shows only what has changed is sent to the terminal.

    Args:
        view: pure.
        title: stands in the rule above; none for a pane without a rule.
    """

    DEFAULT_CSS: ClassVar[str] = """
    Pane { height: 1fr; padding: 0 1; }
    Pane.titled { border-top: solid $panel; border-title-color: $primary; border-title-style: bold; }
    """

    def __init__(self, view: View, title: str = "", *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id, classes="titled" if title else "")
        self.border_title = f" {title} " if title else None
        self._view = view
        self._snapshot: Any = None
        self._words: Words = ()
        self.drawn = 0

    def show(self, snapshot: Any) -> None:
        """Draws what is different from what stands there."""
        self._snapshot = snapshot
        size = self.content_size
        if snapshot is None or not size.width:
            return
        before, self._words = self._words, self._view(snapshot, size.width, size.height)
        if self._words == before:
            return
        self.drawn += 1
        rows = zip_longest(before, self._words, fillvalue=())
        different = [changed(*pair, row, size.width) for row, pair in enumerate(rows) if pair[0] != pair[1]]
        self.refresh(*different)

    def render_line(self, y: int) -> Strip:
        """One row."""
        shown = self._words[y] if y < len(self._words) else ()
        return strip_of(self, shown, self.content_size.width, self.visual_style)

    def on_resize(self, _: events.Resize) -> None:
        """The view may have more to say in more room."""
        self.show(self._snapshot)

    @property
    def plain(self) -> str:
        """What stands there."""
        return lines_of(self._words)
