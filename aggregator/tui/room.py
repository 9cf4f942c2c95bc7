"""What all screens of the fleet share: their header, footer and help."""

from __future__ import annotations

from typing import ClassVar

from textual.message import Message

from aggregator.tui import frame
from aggregator.tui.snapshot import Snapshot
from fieldfold.terminal.room import Room
from fieldfold.terminal.words import Words


class FleetRoom(Room):
    """One screen of the fleet.

    Attributes:
        OWN: keys of this screen's own, with what they do.
    """

    class Wanted(Message):
        """A node is to be looked at in depth."""

        def __init__(self, node: str) -> None:
            super().__init__()
            self.node = node

    OWN: ClassVar[tuple[tuple[str, str], ...]] = ()

    def header(self, snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG002 - a view's signature
        """Which fleet, and how it is."""
        return frame.header(snapshot, self.NAME, width)

    def keys(self, snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG002
        """What is possible here."""
        return frame.keys(snapshot, self.ROOM, width, own=self.OWN)

    def brief(self, snapshot: Snapshot, width: int, height: int) -> Words:
        """A few lines."""
        return frame.brief(snapshot, width, height)

    def action_help(self) -> None:
        """What the screen shows, and all keys."""
        self.open_help(frame.KEYS)

    @property
    def key(self) -> str:
        """What is highlighted: a node, a version; empty where nothing is."""
        return self.listing.key if self.listing is not None else ""
