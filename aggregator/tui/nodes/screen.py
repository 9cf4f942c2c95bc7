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
    OWN = (("s", "Sort"), ("x", "Exclude"))
    ABOUT = """\
Pace: the usual time between two updates of a node. Voice: its share of the weights in the newest 200 versions, \
which is its share in what moves the model. Refused: updates that were not taken, with the newest reason on a \
wide terminal. Sent: bytes of its updates as they came. Enter opens the node; a node that is highlighted stays \
so wherever it goes."""

    def body(self) -> ComposeResult:
        """The model, the nodes, what needs somebody."""
        yield Pane(view.model, "Model", id="model")
        yield Listing(view.heading, view.rows, empty="no node was ever heard", keys=view.names)
        yield Pane(alerts.shown, "Needs you", id="needs")

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Opens the node."""
        message.stop()
        self.post_message(self.Wanted(message.key))
