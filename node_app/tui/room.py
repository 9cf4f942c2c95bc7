"""What all screens of the node share: its header, footer and help."""

from __future__ import annotations

from typing import ClassVar

from fieldfold.terminal.room import Room
from fieldfold.terminal.words import Words
from node_app.tui import frame
from node_app.tui.snapshot import Snapshot


class NodeRoom(Room):
    """One screen of the node.

    Attributes:
        ROOM: its name in frame.ROOMS.
        HAS_LIST: whether there is something to find in.
    """

    ROOM: ClassVar[str]
    HAS_LIST: ClassVar[bool] = True

    def header(self, snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG002 - a view's signature
        """Who, where, and how it is."""
        return frame.header(snapshot, self.ROOM, width)

    def keys(self, snapshot: Snapshot, width: int, height: int) -> Words:  # noqa: ARG002
        """What is possible here."""
        return frame.keys(snapshot, self.ROOM, width, has_list=self.HAS_LIST)

    def brief(self, snapshot: Snapshot, width: int, height: int) -> Words:
        """Two lines."""
        return frame.brief(snapshot, width, height)

    def action_help(self) -> None:
        """What the screen shows, and all keys."""
        self.open_help(frame.KEYS)
