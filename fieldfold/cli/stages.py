"""The stages of a long command: a bar that moves on a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

BAR_CELLS = 20
TICK_S = 0.5


class Stages:
    """Told of each stage in turn, and of what is found out within it.

    A terminal shows a line for each stage that has ended, and below them the present one with a bar and its seconds.

    Args:
        names: all stages, in their order; what is told and is none of them is a detail of the present one.
        stream: where to write; a bar is drawn when it is a terminal.
    """

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._names = list(names)
        self._stream = stream
        self._bar = stream.isatty()
        self._present: str | None = None
        self._begun_at = 0.0
        self._details: list[str] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="stages", daemon=True)

    def __enter__(self) -> Self:
        if self._bar:
            self._ticking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the last stage; one that failed stays without its seconds."""
        if self._bar:
            self._ended.set()
            self._ticking.join()
            with self._lock:
                self._finish(failed=kind is not None)

    def __call__(self, text: str) -> None:
        """Begins the stage of this name, or tells a detail."""
        with self._lock:
            if text not in self._names:
                self._details.append(text)
            else:
                self._finish()
                self._present, self._begun_at = text, time.monotonic()
            if self._bar:
                self._draw()
            elif text in self._names:
                self._write(f"{self._place()} {text}\n")
            else:
                self._write(f"      {text}\n")

    def _place(self) -> str:
        return f"[{self._names.index(self._present or self._names[0]) + 1}/{len(self._names)}]"

    def _finish(self, *, failed: bool = False) -> None:
        """Leaves the present stage as a line of its own, its details below it."""
        if self._bar and self._present is not None:
            took = "failed" if failed else f"{time.monotonic() - self._begun_at:.1f} s"
            lines = [f"{self._present:<45}{took:>8}", *(f"  {detail}" for detail in self._details)]
            self._write("\r\033[K" + "".join(f"{line}\n" for line in lines))
        self._present, self._details = None, []

    def _draw(self) -> None:
        if self._present is None:
            return
        done = self._names.index(self._present)
        filled = BAR_CELLS * done // len(self._names)
        bar = "#" * filled + "." * (BAR_CELLS - filled)
        seconds = time.monotonic() - self._begun_at
        self._write(f"\r\033[K[{bar}] {self._present}  {seconds:.0f} s")

    def _tick(self) -> None:
        while not self._ended.wait(TICK_S):
            with self._lock:
                self._draw()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
