"""The screen of operations."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from aggregator.tui.operations import view
from aggregator.tui.room import FleetRoom
from fieldfold.terminal.listing import Listing


class Operations(FleetRoom):
    """Who did what."""

    NAME, ROOM = "Operations", "operations"
    CSS_PATH = "operations.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"operations"})
    ABOUT = """\
What people asked of the aggregator and was done, out of the ledger. Who: the user at the control socket, as the \
kernel knows him, not as he calls himself."""

    def body(self) -> ComposeResult:
        """The list."""
        yield Listing(view.heading, view.rows, empty="nobody has asked for anything yet")
