"""The screen of the releases."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from aggregator.tui.releases import view
from aggregator.tui.room import FleetRoom
from aggregator.tui.snapshot import Snapshot
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from fieldfold.terminal.reading import Reading


class Releases(FleetRoom):
    """Every version."""

    NAME, ROOM = "Releases", "releases"
    CSS_PATH = "releases.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"versions"})
    OWN = (("b", "Roll back"),)
    ABOUT = """\
The newest 500 versions. Held-out: the score on the data beside the aggregator that no gateway has seen. Rolling \
back releases the parameters of an older version as the next one: every gateway follows it as it follows any \
version, and what was learned from the versions in between is refused as too late."""

    def body(self) -> ComposeResult:
        """The curve, the versions."""
        yield Pane(view.scores, "Held-out score", id="scores")
        yield Listing(view.heading, view.versions, empty="no version was released yet", keys=view.numbers)

    def show(self, snapshot: Snapshot) -> None:
        """Remembers it for whoever wants to read a row."""
        self._snapshot = snapshot
        super().show(snapshot)

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Says what is known of the version."""
        message.stop()
        self.app.push_screen(Reading("", view.told(self._snapshot, message.key)))
