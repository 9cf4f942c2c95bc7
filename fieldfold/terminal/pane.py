"""A pane shows what a pure function makes of a snapshot, and draws only when that has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeAlias

from textual import events
from textual.content import Content
from textual.widgets import Static

from fieldfold.terminal.words import Line, Role, Words, lines_of

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


class Pane(Static):
    """One view.

    Args:
        view: pure.
        title: stands in the rule above; none for a pane without a rule.
    """

    DEFAULT_CSS: ClassVar[str] = """
    Pane { height: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Pane.titled { border-top: solid $panel; border-title-color: $primary; border-title-style: bold; }
    """

    def __init__(self, view: View, title: str = "", *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__("", id=id, markup=False, classes="titled" if title else "")
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
        words = self._view(snapshot, size.width, size.height)
        if words != self._words:
            self._words = words
            self.drawn += 1
            self.update(content(words, ascii_only=self.app.has_class("-ascii")))

    def on_resize(self, _: events.Resize) -> None:
        """The view may have more to say in more room."""
        self.show(self._snapshot)

    @property
    def plain(self) -> str:
        """What stands there."""
        return lines_of(self._words)
