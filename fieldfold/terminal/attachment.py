"""The one connection of the screens to a daemon: a thread that asks, and says what it has heard."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import Rights
from fieldfold.errors import ControlError
from fieldfold.terminal.glyphs import Glyphs

EVERY_S = 1.0
PATIENCE_S = 5.0
NO_RIGHTS: Final = Rights(may_command=False, why_not="no daemon answers", views=(), commands=())


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What the screens of any program are drawn from: one frozen picture of the daemon, or of its absence.

    Attributes:
        now: seconds since 1970 when this was put together.
        lost: why no daemon answers, in one line; empty while one does. Everything else is then what was last heard.
        lost_at: since when, seconds since 1970.
        glyphs: that this terminal can draw.
    """

    now: float = 0.0
    lost: str = ""
    lost_at: float = 0.0
    rights: Rights = NO_RIGHTS
    glyphs: Glyphs = "braille"


P = TypeVar("P", bound=Picture)


class Reader(Protocol[P]):
    """What one program's screens ask its daemon for."""

    @abstractmethod
    def begin(self, before: P) -> P:
        """What of the former picture still holds with a daemon that may have been started again."""

    @abstractmethod
    def look(self, client: ControlClient, wanted: frozenset[str], before: P) -> P:
        """The picture with what is new in it.

        Raises:
            msgspec.ValidationError: when the daemon says what is not understood.
        """

    @abstractmethod
    def without(self, before: P) -> P:
        """The picture when the daemon is gone."""


class Asking(msgspec.Struct, frozen=True):
    """A command with its arguments."""

    command: str
    arguments: dict[str, Any]


class Attachment(Generic[P]):
    """Attaches to the daemon, again whenever it was lost; `tell` and `answer` are called from its thread.

    Args:
        empty: the picture before anything was heard.
        tell: takes every new picture.
        answer: takes what came of a command, and whether it was carried out.
        every_s: time between two looks.
        clock: seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - two ways out, what is asked, two settings and a clock
        self,
        path: Path,
        *,
        reader: Reader[P],
        empty: P,
        read_only: bool,
        tell: Callable[[P], object],
        answer: Callable[[str, bool], object],
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._reader = clock, reader
        self._path, self._read_only, self._every_s = path, read_only, every_s
        self._tell, self._answer = tell, answer
        self._changed = threading.Condition()
        self._stopping = self._woken = False
        self._wanted: frozenset[str] = frozenset()
        self._asked: deque[Asking] = deque()
        self._picture = empty
        self._thread = threading.Thread(target=self._run, name="attachment", daemon=True)

    # -- from the screens --

    def start(self) -> None:
        """Begins asking."""
        self._thread.start()

    def stop(self) -> None:
        """Hangs up; the daemon goes on as it was."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def want(self, views: frozenset[str]) -> None:
        """Asks for these views from now on, at once for the first time."""
        with self._changed:
            self._wanted, self._woken = views, True
            self._changed.notify()

    def command(self, name: str, **arguments: Any) -> None:
        """Has the daemon carry out a command; `answer` says what came of it."""
        with self._changed:
            self._asked.append(Asking(name, arguments))
            self._woken = True
            self._changed.notify()

    # -- the thread --

    def _run(self) -> None:
        while not self._stopping:
            try:
                with ControlClient(self._path, timeout_s=PATIENCE_S) as client:
                    rights = client.attach(read_only=self._read_only)
                    self._picture = msgspec.structs.replace(self._reader.begin(self._picture), rights=rights)
                    while not self._stopping:
                        self._carry_out(client)
                        self._look(client)
                        self._rest()
            except ControlError as error:
                self._lose(error)
                self._rest()

    def _rest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._woken, self._every_s)
            self._woken = False

    def _lose(self, error: ControlError) -> None:
        while self._asked:
            self._answer(f"{self._asked.popleft().command}: {error}", False)
        lost_at = self._picture.lost_at or self._clock()
        self._say(self._reader.without(self._picture), lost=str(error), lost_at=lost_at, rights=NO_RIGHTS)

    def _carry_out(self, client: ControlClient) -> None:
        while self._asked:
            asked = self._asked.popleft()
            try:
                self._answer(str(client.command(asked.command, **asked.arguments)), True)
            except ControlError as error:
                self._answer(str(error), False)

    def _look(self, client: ControlClient) -> None:
        try:
            picture = self._reader.look(client, self._wanted, self._picture)
        except msgspec.ValidationError as error:
            raise ControlError(
                f"the daemon says what is not understood: {error}", "is it of another version?"
            ) from None
        self._say(picture, lost="", lost_at=0.0)

    def _say(self, picture: P, **changes: Any) -> None:
        self._picture = msgspec.structs.replace(picture, now=self._clock(), **changes)
        self._tell(self._picture)
