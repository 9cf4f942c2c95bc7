"""Logging of a daemon: to stderr, one line an event, as text or as JSON."""

from __future__ import annotations

import datetime as dt
import logging
import sys
from typing import Literal, TypeAlias

import msgspec

from fieldfold.control.recent import Recent

LINES_KEPT = 1000
LONGEST_LINE = 2000
Format: TypeAlias = Literal["text", "json"]


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object: time (UTC), level, logger, message, and the traceback where there is one."""
        entry = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Line breaks within a message are escaped, so that nothing from outside can forge a line."""
        line = super().format(record)
        return line if record.exc_info else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class Entry(msgspec.Struct, frozen=True):
    """One line of the log, for a screen; `at` is seconds since 1970."""

    at: float
    level: str
    text: str


class Tail(logging.Handler):
    """Remembers the newest lines of a program's own log; adds itself to the root logger until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: Recent[Entry] = Recent(LINES_KEPT)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line, with what is not printable escaped."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit: the program goes on, as with any other handler
            self.handleError(record)
            return
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message[:LONGEST_LINE])
        self.entries.add(Entry(record.created, record.levelname.lower(), text[:LONGEST_LINE]))

    def close(self) -> None:
        """Hears nothing any more."""
        logging.getLogger().removeHandler(self)
        super().close()


def set_up(*, level: str = "info", form: Format = "text") -> None:
    """Sends all logging to stderr; a second call replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
