"""The screen of one node."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from aggregator.tui.node import view
from aggregator.tui.room import FleetRoom
from aggregator.tui.snapshot import Snapshot
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane


class Node(FleetRoom):
    """One of them."""

    NAME, ROOM = "Node", "node"
    CSS_PATH = "node.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"of_node", "voices"})
    OWN = (("x", "Exclude"), ("z", "Its pause"))
    ABOUT = """\
It says: the newest word of the node itself. Here: what the aggregator counted; moves is its share in what moves \
the model. Its updates: the newest 300 decisions; norm is the length of what it learned. An excluded node is told so \
with each receipt, and what it sends counts for nothing until it is readmitted; what was folded before stays in the \
model (fieldfold aggregator refold takes it out)."""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "app.go('nodes')", show=False)]

    def body(self) -> ComposeResult:
        """What both sides say, and the updates."""
        yield Pane(view.counts, "Here")
        yield Pane(view.says, "It says")
        yield Listing(view.heading, view.updates, empty="none of its updates was decided on yet")

    def show(self, snapshot: Snapshot) -> None:
        """Nothing while what is known is of another node."""
        super().show(snapshot)
        self.looked_at = snapshot.node

    looked_at = ""

    @property
    def key(self) -> str:
        """The node."""
        return self.looked_at
