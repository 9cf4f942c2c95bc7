"""The app of the first run: asks, tests, writes node.toml; it leaves with the file's path, or with nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Final

from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Label, Static
from textual.worker import get_current_worker

from fieldfold.errors import FieldfoldError
from fieldfold.terminal import themes
from fieldfold.terminal.pane import content
from fieldfold.terminal.reading import Question, Reading
from fieldfold.terminal.words import Line, Piece, foreign, line, wrapped
from node_app.setup import answers as answering
from node_app.setup.answers import Answers
from node_app.setup.checks import Finding, look

FIELDS: Final = {
    "identity": ("invitation", "code of fieldfold broker invite; or a folder identities/NAME"),
    "name": ("name", "of this gateway; empty for the certificate's"),
    "url": ("broker", "mqtts://broker.plant:8883"),
    "federation": ("federation", "plant"),
    "files": ("data files", "data/*.csv"),
    "series": ("series column", "name or number; empty: each file is one series"),
    "order": ("order column", "name or number; empty: as the files have it"),
    "columns": ("columns", "feature=column ...; empty: columns have the features' names"),
}
TITLE: Final = "fieldfold  first run: this gateway has no configuration yet"
FOOT: Final = "enter Enrol and test   ctrl+s Write and start   f1 Help   ctrl+c Leave"
BEGIN: Final = "Paste the invitation's code and press enter: each step is taken and tested as far as the answers go."
INVITED: Final = ("name", "url", "federation")
"""What an invitation's code answers."""
UNTESTED: Final = "Not all of it was tested and works. Write node.toml all the same, and start?"
ABOUT: Final = """\
Each line is a key of node.toml, which is written where you are, as a person would write it; edit it there later.
invitation: the code that fieldfold broker invite has printed at the broker. It is good once: with enter the \
private key is made here, and a certificate for it comes into the folder identity. A folder with ca.crt, NAME.crt \
and NAME.key from the broker's machine does as well; empty, where the broker wants no certificates.
columns: the task says which features it wants; name the column of each, or leave out those of the same name.
enter enrols and tests everything, ctrl+s writes node.toml, which is not written before, and starts the gateway.
tab and shift+tab go from line to line; ctrl+c leaves without writing anything."""
Look = Callable[[Answers, Path], Iterator[Finding]]


class Found(Message):
    """What the steps came to so far; `answers` are those that were tested."""

    def __init__(self, answers: Answers, findings: tuple[Finding, ...], *, done: bool) -> None:
        super().__init__()
        self.answers, self.findings, self.done = answers, findings, done


class Answer(Input):
    """A line of the form; all that is pasted is one answer, though a mail has broken it into lines."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.insert_text_at_cursor(" ".join(event.text.split("\n")).strip())


class Setup(Screen[None]):
    """The form."""

    CSS_PATH = "setup.tcss"
    AUTO_FOCUS = "#identity"

    def compose(self) -> ComposeResult:
        """A line for each answer, and what was found."""
        yield Static(TITLE, classes="title", markup=False)
        for name, (label, example) in FIELDS.items():
            with Horizontal():
                yield Label(label)
                yield Answer(id=name, placeholder=example, compact=True)
        with VerticalScroll(id="findings", can_focus=False) as findings:
            findings.border_title = " What was found "
            yield Static(BEGIN, id="found", markup=False)
        yield Static(FOOT, classes="foot", markup=False)


class SetupApp(App[Path]):
    """The first run.

    Args:
        target: where node.toml is written; answers are relative to its folder.
        look: tests answers.
        theme: one of themes.NAMES.
    """

    TITLE = "fieldfold"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "write", "Write and start", show=False, priority=True),
        # With priority, what is typed right after a tab is already the next line's.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("f1", "about", "Help", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(self, target: Path, *, theme: str = "dark", look: Look = look) -> None:
        super().__init__()
        themes.register(self)
        self.theme = themes.NAMES[theme]
        self._target, self._base, self._look = target, target.resolve().parent, look
        self._tested: Found | None = None
        self._turn = threading.Lock()

    def on_mount(self) -> None:
        """Opens the form."""
        self.push_screen(Setup())

    @property
    def form(self) -> Setup:
        """The form, perhaps under a question."""
        return next(screen for screen in self.screen_stack if isinstance(screen, Setup))

    @property
    def answers(self) -> Answers:
        """As they stand there now."""
        return Answers(**{name: self.form.query_one(f"#{name}", Input).value for name in FIELDS})

    @on(Input.Changed, "#identity")
    def _invited(self, event: Input.Changed) -> None:
        """A code is nobody else's to read; what it answers needs no answer."""
        event.input.password = answering.is_code(event.value)
        try:
            invited = answering.settled(self.answers)
        except FieldfoldError:
            return
        for name in INVITED:
            field = self.form.query_one(f"#{name}", Input)
            field.disabled = event.input.password
            field.value = getattr(invited, name)

    # -- testing --

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._show((line("testing ..."),))
        self._test(self.answers)

    @work(thread=True, exclusive=True)
    def _test(self, answers: Answers) -> None:
        """In a thread of its own, one at a time: a broker that does not answer takes its time."""
        findings: tuple[Finding, ...] = ()
        with self._turn:
            if get_current_worker().is_cancelled:
                return
            for finding in self._look(answers, self._base):
                findings = (*findings, finding)
                self.post_message(Found(answers, findings, done=False))
        self.post_message(Found(answers, findings, done=True))

    @on(Found)
    def _found(self, message: Found) -> None:
        if message.answers != self.answers:
            return
        if message.done:
            self._tested = message
        width = self.form.query_one("#found", Static).content_size.width or 76
        lines: list[Line] = []
        for finding in message.findings:
            first: Piece = ("ok  ", "good") if finding.ok else ("!   ", "bad")
            for index, each in enumerate(wrapped(foreign(finding.words), width - 4)):
                lines.append(line("    " if index else first, each))
        if message.done and self._is_good:
            lines.append(line(("all of it works: ctrl+s writes node.toml and starts", "strong")))
        elif not message.done:
            lines.append(line(("...", "dim")))
        self._show(tuple(lines))

    def _show(self, lines: tuple[Line, ...]) -> None:
        self.form.query_one("#found", Static).update(content(lines))
        self.call_after_refresh(
            self.form.query_one("#findings", VerticalScroll).scroll_end, animate=False, force=True
        )

    @property
    def _is_good(self) -> bool:
        """Whether what stands there now was tested, and works."""
        tested = self._tested
        return tested is not None and tested.answers == self.answers and all(each.ok for each in tested.findings)

    # -- writing --

    def action_about(self) -> None:
        """Help."""
        self.push_screen(Reading("First run", ABOUT))

    def action_write(self) -> None:
        """Writes the file and leaves with it; what was not tested, or does not work, only after asking."""
        if self._is_good:
            self._write(agreed=True)
        else:
            self.push_screen(Question(UNTESTED), self._write)

    def _write(self, agreed: bool | None) -> None:  # noqa: FBT001 - textual's callback
        if not agreed:
            return
        try:
            answering.config(self.answers, self._base)
            with self._target.open("x", encoding="utf-8") as file:
                file.write(answering.text(self.answers, self._base))
        except FieldfoldError as error:
            self._show((line(("!   ", "bad"), foreign(str(error))),))
        except OSError as error:
            self._show((line(("!   ", "bad"), f"{self._target}: cannot be written: {error.strerror}"),))
        else:
            self.exit(self._target)
