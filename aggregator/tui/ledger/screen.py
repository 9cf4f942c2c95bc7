"""The screen of the ledger."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from aggregator.tui.ledger import view
from aggregator.tui.room import FleetRoom
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane


class Ledger(FleetRoom):
    """The log."""

    NAME, ROOM = "Ledger", "ledger"
    CSS_PATH = "ledger.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"decisions"})
    OWN = (("v", "Verify"),)
    ABOUT = """\
The newest 300 decisions. The model is a fold over the updates that were taken, in their places: verifying folds \
all of them again, out of a copy and in a process of its own, and compares every version with what was released, \
bit for bit."""

    def body(self) -> ComposeResult:
        """The proof, the log."""
        yield Pane(view.proof, "Proof", id="proof")
        yield Listing(view.heading, view.decisions, empty="nothing was decided yet")
