"""Something to read over the screen, and a question that is asked first."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

_CSS = """
{name} {{ align: center middle; background: $background 60%; }}
{name}:ansi {{ background: ansi_default; }}
{name} > VerticalScroll {{
    width: 76; max-width: 100%; height: auto; max-height: 100%; background: $surface;
    border: solid $primary; border-title-style: bold; padding: 0 1;
}}
{name} Static {{ height: auto; }}
"""


class Reading(ModalScreen[None]):
    """Text until a key is pressed that closes it."""

    DEFAULT_CSS: ClassVar[str] = _CSS.format(name="Reading")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "dismiss", "Close"),
        Binding("c,y", "copy", "Copy"),
        Binding("j", "app.simulate_key('down')", show=False),
        Binding("k", "app.simulate_key('up')", show=False),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self.text = title, text

    def compose(self) -> ComposeResult:
        """The text, which scrolls where it is longer than the screen."""
        with VerticalScroll() as box:
            box.border_title = self._title or None
            box.border_subtitle = "esc Close   c Copy"
            yield Static(self.text, markup=False)

    def action_copy(self) -> None:
        """To the clipboard of whoever sits there, by OSC 52."""
        self.app.copy_to_clipboard(self.text)
        self.notify("copied")


class Question(ModalScreen[bool]):
    """Asks before something is done; only `y` does it."""

    DEFAULT_CSS: ClassVar[str] = _CSS.format(name="Question")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q,enter", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """The question and the keys that answer it."""
        with VerticalScroll() as box:
            box.border_subtitle = "y Yes   n No"
            yield Static(self.question, markup=False)
