"""The log screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from node_app.tui.log import view
from node_app.tui.room import NodeRoom


class Log(NodeRoom):
    """What the daemon has said."""

    NAME, ROOM = "Log", "log"
    CSS_PATH = "log.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"log"})
    ABOUT = """\
The newest 1000 lines since the daemon started; the service manager has them all: journalctl -u fieldfold-node. \
The newest line stays in sight until you move up; f goes back to it. Enter shows a long line whole."""

    def body(self) -> ComposeResult:
        """The lines."""
        yield Listing(view.heading, view.entries, empty="the daemon has said nothing since its start", follow=True)
