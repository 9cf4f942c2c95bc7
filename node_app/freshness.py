"""Whether the data that was read is still what lies on the disk, and when it is worth reading again. Pure."""

from __future__ import annotations

from fieldfold.sensors.files import Fingerprint

AT_THE_LATEST_S = 600.0
"""Files that never stand still, a log for example, are read again this long after a change was first seen."""


class Freshness:
    """What was read, and what has been seen since."""

    def __init__(self, read: Fingerprint) -> None:
        self._read = self._seen = read
        self._changed_at: float | None = None

    def note_read(self, read: Fingerprint) -> None:
        """The files were read as they were when this was taken."""
        self._read = self._seen = read
        self._changed_at = None

    def is_worth_reading(self, found: Fingerprint, now: float) -> bool:
        """Whether the files have changed and then stood still from one look to the next, or have changed long ago."""
        stands_still, self._seen = found == self._seen, found
        if found == self._read:
            self._changed_at = None
            return False
        if self._changed_at is None:
            self._changed_at = now
        return stands_still or now - self._changed_at >= AT_THE_LATEST_S
