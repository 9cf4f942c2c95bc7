"""The newest of what happens, numbered, so that a view asks only for what it has not seen."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Slice(msgspec.Struct, Generic[T], frozen=True):
    """Part of what happened.

    Attributes:
        end: number of the newest item ever, counted from 1; ask for what comes after it.
        items: oldest first.
    """

    end: int
    items: tuple[T, ...]


class Recent(Generic[T]):
    """A bounded list that forgets its oldest. Thread-safe.

    Args:
        kept: how many items are remembered.
    """

    def __init__(self, kept: int) -> None:
        self._items: deque[T] = deque(maxlen=kept)
        self._lock = threading.Lock()
        self.end = 0

    def add(self, item: T) -> None:
        """Something has happened."""
        with self._lock:
            self._items.append(item)
            self.end += 1

    def after(self, number: int = 0) -> Slice[T]:
        """What came after the item with that number, as far as it is remembered."""
        with self._lock:
            fresh = max(0, min(self.end - number, len(self._items)))
            return Slice(self.end, tuple(self._items)[len(self._items) - fresh :])
