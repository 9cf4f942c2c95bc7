"""The network screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from fieldfold.terminal.listing import Listing
from fieldfold.terminal.pane import Pane
from node_app.tui.network import view
from node_app.tui.room import NodeRoom


class Network(NodeRoom):
    """The broker, and what waits for it."""

    NAME, ROOM = "Network", "network"
    CSS_PATH = "network.tcss"
    WANTS: ClassVar[frozenset[str]] = frozenset({"outbox"})
    ABOUT = """\
Broker: the connection, and how often it came back since the daemon started. The round trip is that of the newest \
chunk of an update, until the broker acknowledged it. Fetching: how much of a task or a model is here; a lost link \
costs none of it.
Traffic: MQTT payloads since the daemon started, beside what the same updates and versions would be in float32.
Outbox: updates stay here until the aggregator's receipt, through restarts and power cuts. One of which nothing has \
been sent is replaced by a newer that holds it too: a gateway that was away for a week sends one."""

    def body(self) -> ComposeResult:
        """The link, the bytes, the outbox."""
        yield Pane(view.broker, "Broker")
        yield Pane(view.traffic, "Traffic")
        yield Listing(view.heading, view.outbox, empty="the outbox is empty: every update has its receipt")
