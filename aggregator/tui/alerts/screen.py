"""The screen of alerts."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from aggregator.tui.alerts import view
from aggregator.tui.room import FleetRoom
from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane


class Alerts(FleetRoom):
    """What is not as usual."""

    NAME, ROOM = "Alerts", "alerts"
    CSS_PATH = "alerts.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"rejections", "versions", "voices"})
    ABOUT = """\
Needs you: each line says what to do, and the key of the screen that shows more. Refused: the newest 300 updates \
that were not taken. Stale or of another run is harmless: the node goes on from the newest version. Not finite, \
a wrong size, an absurd claim or norm, a false name: a broken node, or one that is not yours. None of it has \
touched the model."""

    def body(self) -> ComposeResult:
        """The alerts, the refusals."""
        yield Pane(view.shown, "Needs you", id="needs")
        yield Listing(view.heading, view.refused, empty="no update was refused lately")
