"""The data screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from node_app.tui.data import view
from node_app.tui.room import NodeRoom


class Data(NodeRoom):
    """What this gateway learns from."""

    NAME, ROOM = "Data", "data"
    CSS_PATH = "data.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"drift"})
    ABOUT = """\
Sources: what was read from the files of node.toml, how it was cut into windows, and what was dropped and why.
Target: how what the model is to say is distributed over the windows; a bin is named by its lower edge.
Features: in their own units. Drift is how far the mean here lies from the fleet's, in the fleet's standard \
deviations; beyond two it is marked as far. That may be an honest difference of this machine, or a wrong column. \
Changed files are looked at every minute and read again when they stand still."""

    def body(self) -> ComposeResult:
        """Two panes and the features."""
        yield Pane(view.sources, "Sources")
        yield Pane(view.targets, "Target")
        yield Listing(view.heading, view.features, empty="no data was read yet")
