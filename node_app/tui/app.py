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

ROLL_BACK = "Serve {former} again instead of v{served}, and pin it? Training and the fleet go on as they were."
PIN = "Pin v{served}? Predictions are made with it whatever comes, until it is unpinned."
EXPORT = "Write v{served} to a file on the gateway, into the folder exports of its state_dir?"


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
    ROOM_KEYS = Guest.ROOM_KEYS | {"pause", "roll_back", "pin", "export"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause or go on", show=False),
        Binding("b", "roll_back", "Roll back", show=False),
        Binding("i", "pin", "Pin or unpin", show=False),
        Binding("w", "export", "Export", show=False),
    ]

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

    def action_roll_back(self) -> None:
        """Serves what was served before, after asking."""
        if isinstance(self.room, Model) and (status := self.snapshot.status) is not None:
            former = "what was before" if status.former_version is None else f"v{status.former_version}"
            self.ask_first(ROLL_BACK.format(served=status.served_version, former=former), "roll_back")

    def action_pin(self) -> None:
        """Pins what is served, after asking; or unpins it."""
        status = self.snapshot.status
        if not isinstance(self.room, Model) or status is None:
            return
        if status.pinned and self.may_command():
            self.attachment.command("unpin")
        elif not status.pinned:
            self.ask_first(PIN.format(served=status.served_version), "pin")

    def action_export(self) -> None:
        """Writes what is served to a file, after asking."""
        if isinstance(self.room, Model) and (status := self.snapshot.status) is not None:
            self.ask_first(EXPORT.format(served=status.served_version), "export")

    def commands(self) -> Iterable[SystemCommand]:
        """What `p` does now."""
        if words := frame.pause_words(self.snapshot):
            yield SystemCommand(f"{words}", "key p", self.action_pause)
        if isinstance(self.room, Model) and self.snapshot.rights.may_command:
            yield SystemCommand("Roll back to what was served before", "key b", self.action_roll_back)
            yield SystemCommand("Pin or unpin the served version", "key i", self.action_pin)
            yield SystemCommand("Export the served model", "key w", self.action_export)
