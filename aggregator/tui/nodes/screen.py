"""The screen of the fleet's nodes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from aggregator.tui.alerts import view as alerts
from aggregator.tui.nodes import view
from aggregator.tui.room import FleetRoom
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane


class Nodes(FleetRoom):
    """Everybody."""

    NAME, ROOM = "Nodes", "nodes"
    CSS_PATH = "nodes.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"versions", "voices"})
    OWN = (("enter", "Node"), ("s", "Sort"), ("x", "Exclude"))
    ABOUT = """\
Stale: versions that its newest update was behind. Pace: the usual time between two of its updates. Weight: its \
share of the weights in the newest 200 versions. Moves: its share in what moves the model, weight times length. \
Refused: updates that were not taken. Sent: bytes of its updates. Seen: how long ago the newest came. A column that \
there is no room for is shown while the nodes are sorted by it. Enter opens the node."""

    def body(self) -> ComposeResult:
        """The model, the nodes, what needs somebody."""
        yield Pane(view.model, "Model", id="model")
        yield Listing(view.heading, view.rows, empty="no node was ever heard", keys=view.names)
        yield Pane(alerts.shown, "Needs you", id="needs")

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Opens the node."""
        message.stop()
        self.post_message(self.Wanted(message.key))
