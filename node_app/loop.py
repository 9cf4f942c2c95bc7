"""A thread of the node: it works when there is news, and rests between."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from node_app.pulse import Pulse

IDLE_AFTER_S = 10.0


class Loop(ABC):
    """Calls `_work` again and again until it is stopped.

    Args:
        name: of the thread.
        stalled_after_s: a turn may take so long from one beat of the pulse to the next.
        when_idle: called in a rest that turns out to be long.

    Attributes:
        pulse: whether it makes progress.
    """

    def __init__(self, name: str, stalled_after_s: float, when_idle: Callable[[], None] = lambda: None) -> None:
        self.pulse = Pulse(stalled_after_s)
        self._changed = threading.Condition()
        self._stopping = False
        self._news = self._seen = 0
        self._when_idle = when_idle
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Asks it to end, which it does when what it is at is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Waits for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def wake(self) -> None:
        """Something has changed that it may be waiting for."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    @property
    def is_alive(self) -> bool:
        """Whether it is at work; it ends only when it is stopped, or by a fault of the program."""
        return self._thread.is_alive()

    @abstractmethod
    def _work(self) -> None:
        """One turn."""

    def _end(self) -> None:  # noqa: B027 - not all have something to do then
        """What is left to do when it was stopped."""

    def _run(self) -> None:
        while not self._stopping:
            self.pulse.beat()
            self._seen = self._news
            self._work()
        self._end()

    def _rest(self, seconds: float | None) -> None:
        """Until something has happened since this turn began, or the time is over."""
        self._sleep(lambda: self._news != self._seen, seconds)

    def _sleep(self, is_over: Callable[[], bool], seconds: float | None) -> None:
        """Until that is so, or the time is over, or it is stopped."""
        with self._changed, self.pulse.resting():
            if seconds is not None and seconds <= IDLE_AFTER_S:
                self._changed.wait_for(lambda: self._stopping or is_over(), seconds)
            elif not self._changed.wait_for(lambda: self._stopping or is_over(), IDLE_AFTER_S):
                self._when_idle()
                left_s = None if seconds is None else seconds - IDLE_AFTER_S
                self._changed.wait_for(lambda: self._stopping or is_over(), left_s)
