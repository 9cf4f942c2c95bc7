"""The app: screens and commands. What is decided and worded is elsewhere, in pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from fieldfold.terminal.app import Guest
from node_app.tui import frame
from node_app.tui.data.screen import Data
from node_app.tui.log.screen import Log
from node_app.tui.model.screen import Model
from node_app.tui.network.screen import Network
from node_app.tui.overview.screen import Overview
from node_app.tui.reader import NodeReader
from node_app.tui.snapshot import Snapshot
from node_app.tui.training.screen import Training

PAUSE = "Pause training on {node}? The model is followed all the same, and what waits is still sent."


class NodeApp(Guest[Snapshot]):
    """The screens of one node.

    Args:
        socket: of the daemon; it may come and go.
        settings: as of Guest.
    """

    SCREENS: ClassVar[dict[str, Callable[[], Screen[None]]]] = {
        "overview": Overview,
        "data": Data,
        "training": Training,
        "model": Model,
        "network": Network,
        "log": Log,
    }
    ROOMS = frame.ROOMS
    ROOM_KEYS = Guest.ROOM_KEYS | {"pause"}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("p", "pause", "Pause or go on", show=False)]

    def __init__(self, socket: Path, **settings: Any) -> None:
        super().__init__(socket, reader=NodeReader(), empty=Snapshot(), **settings)

    def action_pause(self) -> None:
        """Pauses after asking, or goes on at once."""
        status = self.snapshot.status
        if status is not None and status.state in {"paused", "needs attention"}:
            if self.may_command():
                self.attachment.command("resume")
        elif self.may_command() and status is not None:
            self.ask_first(PAUSE.format(node=status.node), "pause")

    def commands(self) -> Iterable[SystemCommand]:
        """What `p` does now."""
        if words := frame.pause_words(self.snapshot):
            yield SystemCommand(f"{words}", "key p", self.action_pause)
