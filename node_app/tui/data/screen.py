"""The data screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from fieldfold.terminal.reading import Reading
from fieldfold.terminal.words import foreign
from node_app.tui.data import view
from node_app.tui.room import NodeRoom
from node_app.tui.snapshot import Snapshot

TOLD_COLUMNS = 72


class Data(NodeRoom):
    """What this gateway learns from."""

    NAME, ROOM = "Data", "data"
    CSS_PATH = "data.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"drift", "sample"})
    ABOUT = """\
Sources: what was read from the files of node.toml, how it was cut into windows, and what was dropped and why.
Target: how what the model is to say is distributed over the windows; a bin is named by its lower edge.
Features: in their own units. Drift is how far the mean here lies from the fleet's, in the fleet's standard \
deviations; beyond two it is marked as far. That may be an honest difference of this machine, or a wrong column. \
Sample: one training window, oldest on the left; enter draws it large. \
Changed files are looked at every minute and read again when they stand still."""

    def body(self) -> ComposeResult:
        """Two panes and the features."""
        yield Pane(view.sources, "Sources")
        yield Pane(view.targets, "Target")
        yield Listing(view.heading, view.features, empty="no data was read yet", keys=view.names)

    def show(self, snapshot: Snapshot) -> None:
        """Remembers it for whoever wants to read a row."""
        self._snapshot = snapshot
        super().show(snapshot)

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """A feature in depth."""
        message.stop()
        said = view.told(self._snapshot, message.key, min(TOLD_COLUMNS, self.size.width - 4))
        self.app.push_screen(Reading(foreign(message.key), said))
