"""The fleet's app: screens and commands. What is decided and worded is elsewhere, in pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from aggregator.tui import frame
from aggregator.tui.alerts.screen import Alerts
from aggregator.tui.ledger.screen import Ledger
from aggregator.tui.node.screen import Node
from aggregator.tui.nodes.screen import Nodes
from aggregator.tui.operations.screen import Operations
from aggregator.tui.orders import Order, following
from aggregator.tui.reader import FleetReader
from aggregator.tui.releases.screen import Releases
from aggregator.tui.releases.view import told
from aggregator.tui.room import FleetRoom
from aggregator.tui.snapshot import Snapshot
from fieldfold.terminal.app import Guest

PAUSE = "Hold the model at {version}? Updates are taken and wait; gateways go on training from {version}."
RELEASE = "Release a version out of the updates that wait, and hold the model there?"
EXCLUDE = "Exclude {node}? Nothing of it is taken from now on. What was folded stays in the model."
READMIT = "Readmit {node}? Its updates count again."
NODE_PAUSE = "Have {node} hold its training? It follows the model all the same."
ROLL_BACK = (
    "Roll back to {told}?\n\nIts parameters are released as the next version, and every gateway follows it. What was"
    " learned from the versions in between is refused."
)
VERIFY = "Verify the ledger? It is copied and folded again beside the work; that takes room, and time of one core."


class FleetApp(Guest[Snapshot]):
    """The screens of a fleet.

    Args:
        socket: of the aggregator; it may come and go.
        settings: as of Guest.
    """

    SCREENS: ClassVar[dict[str, Callable[[], Screen[None]]]] = {
        "nodes": Nodes,
        "node": Node,
        "releases": Releases,
        "ledger": Ledger,
        "alerts": Alerts,
        "operations": Operations,
    }
    ROOMS = frame.ROOMS
    ROOM_KEYS = Guest.ROOM_KEYS | {"pause", "release", "exclude", "node_pause", "roll_back", "verify", "sort"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause or go on", show=False),
        Binding("e", "release", "Release", show=False),
        Binding("x", "exclude", "Exclude or readmit", show=False),
        Binding("z", "node_pause", "Pause a node", show=False),
        Binding("b", "roll_back", "Roll back", show=False),
        Binding("v", "verify", "Verify", show=False),
        Binding("s", "sort", "Sort", show=False),
    ]

    def __init__(self, socket: Path, **settings: Any) -> None:
        self._reader = FleetReader()
        self._order: Order = "node"
        super().__init__(socket, reader=self._reader, empty=Snapshot(), **settings)

    def adjusted(self, picture: Snapshot) -> Snapshot:
        """Sorted as the person at this screen wants it."""
        return msgspec.structs.replace(picture, order=self._order)

    @property
    def chosen(self) -> str:
        """What is highlighted: a node, a version; empty where nothing is."""
        return self.room.key if isinstance(self.room, FleetRoom) else ""

    @property
    def chosen_node(self) -> str:
        """The node that is highlighted or looked at."""
        return self.chosen if isinstance(self.room, Nodes | Node) else ""

    # -- keys --

    def on_fleet_room_wanted(self, message: FleetRoom.Wanted) -> None:
        """A node in depth."""
        self._reader.node = message.node
        self.snapshot = msgspec.structs.replace(self.snapshot, node=message.node, of_node=())
        self.action_go("node")

    def action_sort(self) -> None:
        """By the next column."""
        if isinstance(self.room, Nodes):
            self._order = following(self._order)
            self.snapshot = self.adjusted(self.snapshot)
            self.room.show(self.snapshot)
            self.notify(f"sorted by {self._order}", timeout=1.5)

    def action_pause(self) -> None:
        """Holds the model, or goes on."""
        status = self.snapshot.status
        if status is None or not self.may_command():
            return
        if status.state == "paused":
            self.attachment.command("resume")
        else:
            self.ask_first(PAUSE.format(version=frame.version_words(self.snapshot)), "pause")

    def action_release(self) -> None:
        """A version out of what waits."""
        self.ask_first(RELEASE, "release")

    def action_exclude(self) -> None:
        """Takes nothing of the node any more, or takes it again."""
        status, name = self.snapshot.status, self.chosen_node
        if status is None or not name:
            return
        excluded = any(node.node == name and node.excluded_by for node in status.nodes)
        question, command = (READMIT, "readmit") if excluded else (EXCLUDE, "exclude")
        self.ask_first(question.format(node=name), command, node=name)

    def action_node_pause(self) -> None:
        """Asks the node to hold its training, or to go on."""
        status, name = self.snapshot.status, self.chosen_node
        found = next((node for node in status.nodes if node.node == name), None) if status else None
        if found is None or not self.may_command():
            return
        if found.presence is not None and found.presence.state == "paused":
            self.attachment.command("resume", node=name)
        else:
            self.ask_first(NODE_PAUSE.format(node=name), "pause", node=name)

    def action_roll_back(self) -> None:
        """To the version that is highlighted."""
        if isinstance(self.room, Releases) and self.chosen:
            said = told(self.snapshot, self.chosen)
            self.ask_first(ROLL_BACK.format(told=said), "roll_back", version=int(self.chosen))

    def action_verify(self) -> None:
        """Folds the log again, beside the work."""
        if isinstance(self.room, Ledger):
            self.ask_first(VERIFY, "verify")

    def commands(self) -> Iterable[SystemCommand]:
        """What can be asked for at this place."""
        if words := frame.pause_words(self.snapshot):
            yield SystemCommand(f"{words}", "key p", self.action_pause)
        if not self.snapshot.rights.may_command:
            return
        if words == "Go on":
            yield SystemCommand("Release what waits", "key e", self.action_release)
        if name := self.chosen_node:
            yield SystemCommand(f"Exclude or readmit {name}", "key x", self.action_exclude)
            yield SystemCommand(f"Pause or resume {name}", "key z", self.action_node_pause)
        if isinstance(self.room, Releases):
            yield SystemCommand("Roll back to this version", "key b", self.action_roll_back)
        if isinstance(self.room, Ledger):
            yield SystemCommand("Verify the ledger", "key v", self.action_verify)
