"""The model screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from node_app.tui.model import view
from node_app.tui.room import NodeRoom


class Model(NodeRoom):
    """What the fleet has learned, judged here."""

    NAME, ROOM = "Model", "model"
    CSS_PATH = "model.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"adoptions"})
    ABOUT = """\
Every released version is evaluated on this gateway's own validation data before it is served. One that scores worse \
than the served one is refused here: training goes on from it all the same, and predictions are made with the better.
Versions: those that came since the daemon started, newest first."""

    def body(self) -> ComposeResult:
        """The models, the curve, the versions."""
        yield Pane(view.versions, "Model")
        yield Pane(view.scores, "Score")
        yield Listing(view.heading, view.adoptions, empty="no version was evaluated since the daemon started")
