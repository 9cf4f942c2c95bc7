"""What has come and gone today, out of counts that run since the daemon's start."""

from __future__ import annotations

import datetime as dt

import msgspec


class Counts(msgspec.Struct, frozen=True):
    """Running counts; sizes in bytes, `float32` what the same updates and versions would have been uncompressed."""

    accepted: int = 0
    rejected: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    float32: int = 0
    reconnects: int = 0

    def since(self, before: Counts) -> Counts:
        """What has been added."""
        return Counts(*(now - then for now, then in zip(*map(msgspec.structs.astuple, (self, before)), strict=True)))


class Day:
    """Remembers what the counts were when the day began, or the daemon, if that was later.

    Attributes:
        began: the counts then.
        since_s: when that was, in seconds since 1970.
    """

    def __init__(self, counts: Counts, now_s: float) -> None:
        self.began, self.since_s = counts, now_s
        self._date = dt.datetime.fromtimestamp(now_s).astimezone().date()

    def look(self, counts: Counts, now_s: float) -> None:
        """A new day may have begun, by the box's own calendar."""
        date = dt.datetime.fromtimestamp(now_s).astimezone().date()
        if date != self._date:
            self.began, self.since_s, self._date = counts, now_s, date
