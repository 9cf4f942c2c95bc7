"""The training screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from node_app.tui.room import NodeRoom
from node_app.tui.training import view


class Training(NodeRoom):
    """How it learns, and what became of it."""

    NAME, ROOM = "Training", "training"
    CSS_PATH = "training.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"runs", "history"})
    ABOUT = """\
Now: the run under way, what it costs the box, and why this runtime was taken.
Loss: the mean over each local run since the daemon started.
Updates: the newest 200 decisions of the aggregator, with the reason where one was rejected. Stale says how many \
versions the fleet had moved on while the update was made: it counts for less, and is not wrong. \
Error says how far what was sent lies from what was trained, as a share of its length: error feedback brings the \
rest next time; a profile that rounds at random (balanced) is far off each time, and right in the mean. \
What a rejected update held is not sent again, unless it only came too late: then the next one brings it."""

    def body(self) -> ComposeResult:
        """The run, the curve, the decisions."""
        yield Pane(view.present, "Now")
        yield Pane(view.losses, "Loss")
        yield Listing(view.heading, view.updates, empty="no update was decided on yet")
