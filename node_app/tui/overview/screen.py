"""The overview."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.pane import Pane
from node_app.tui import alerts
from node_app.tui.overview import view
from node_app.tui.room import NodeRoom


class Overview(NodeRoom):
    """One glance."""

    NAME, ROOM, HAS_LIST = "Overview", "overview", False
    CSS_PATH = "overview.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"history", "runs", "adoptions", "drift"})
    ABOUT = """\
Is it learning: the state in the header, and the loss.
Is it connected: the link. While it is down, training goes on and nothing is lost.
Is the model any good: both scores are taken on this gateway's own validation data. Global is the fleet's newest \
model; served is the one that predictions are made with, the best that was here so far.
What does it cost: today's bytes, since midnight or since the daemon's start, and what they would have been \
uncompressed.
What needs you: what to do, and the key of the screen that shows more."""

    def body(self) -> ComposeResult:
        """Four panes, what needs somebody, and curves where there is room."""
        yield Pane(view.model, "Model")
        yield Pane(view.training, "Training")
        yield Pane(view.curves, "Curves", id="curves")
        yield Pane(view.updates, "Updates")
        yield Pane(view.link, "Link")
        yield Pane(alerts.shown, "Needs you", id="needs")
