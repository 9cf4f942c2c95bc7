"""How far a long command is: a bar that moves on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

BAR_CELLS = 20
DRAWN_EVERY_S = 0.2
TOLD_EVERY_S = 10.0


class Progress:
    """Told how much is done, as often as one likes; use as a context manager.

    Args:
        what: of what, such as `contributions`.
        total: how many there are; 0 where it is not known.
        stream: where to write; a bar is drawn when it is a terminal.
        told_every_s: where it is none, a line is written this often; None for TOLD_EVERY_S.
    """

    def __init__(self, what: str, total: int, stream: TextIO, told_every_s: float | None = None) -> None:
        self._what, self._total, self._stream = what, total, stream
        self._bar = stream.isatty()
        self._every_s = DRAWN_EVERY_S if self._bar else TOLD_EVERY_S if told_every_s is None else told_every_s
        self._begun_at = self._shown_at = time.monotonic()
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last line on a terminal."""
        if self._bar:
            self._write(f"\r\033[K{self._line()}\n")

    def __call__(self, done: int, total: int | None = None) -> None:
        """So much is done; `total` corrects the former one."""
        self._done = done
        self._total = self._total if total is None else total
        now = time.monotonic()
        if now - self._shown_at >= self._every_s:
            self._shown_at = now
            self._write(f"\r\033[K{self._line()}" if self._bar else f"{self._line()}\n")

    def _line(self) -> str:
        seconds = f"{time.monotonic() - self._begun_at:.0f} s"
        if not self._total:
            return f"{self._done:,} {self._what}  {seconds}"
        filled = min(BAR_CELLS, BAR_CELLS * self._done // self._total)
        bar = f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}] " if self._bar else ""
        return f"{bar}{self._done:,} of {self._total:,} {self._what}  {seconds}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
