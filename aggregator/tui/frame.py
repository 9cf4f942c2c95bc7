"""What stands around every screen: the header, the footer, and the lines for a very small terminal. Pure."""

from __future__ import annotations

from typing import Final

from aggregator.tui.alerts.view import found
from aggregator.tui.snapshot import Snapshot
from fieldfold.cli.figures import duration, number
from fieldfold.terminal import frame
from fieldfold.terminal.words import Piece, Role, Words, fit, foreign, line, text, wrapped

ROOMS: Final = {
    "nodes": ("n", "Nodes"),
    "releases": ("r", "Releases"),
    "ledger": ("l", "Ledger"),
    "alerts": ("a", "Alerts"),
    "operations": ("o", "Operations"),
}
"""Screen -> its key and its name; one node is opened by enter."""
NARROW: Final = 60
LOOKS: Final = {"s", "enter"}
"""Keys of a screen's own that command nothing."""
KEYS: Final = """\
n r l a o      Nodes, Releases, Ledger, Alerts, Operations
tab, right     the next screen; shift+tab, left or h: the one before
up, down, j k  move in a list; page up and down; home, end, g, G
/              find in a list; escape shows all again
enter          on Nodes the node in depth, else the whole row; escape: back
s              on Nodes: sort by the next column
p              pause: the model stays, and updates wait; or go on
e              while it is paused: release a version out of what waits
x, z           exclude the node, or readmit it; have it pause its training
b              on Releases: roll back to the version
v              on Ledger: verify it, out of a copy
c, y           copy the row, or all panes, to your clipboard (OSC 52)
ctrl+p, :      every command by name, themes among them
?              this; q leaves: the aggregator goes on without the screen
Each command asks first, and is written into the ledger with who asked."""


def state_words(snapshot: Snapshot) -> Piece:
    """The state in capitals, and how it is to be taken."""
    if snapshot.lost:
        return ("NOT REACHED", "bad")
    if snapshot.status is None:
        return ("ATTACHING", "dim")
    state = snapshot.status.state
    roles: dict[str, Role] = {"folding": "good", "paused": "warn", "storage full": "bad"}
    return (foreign(state).upper(), roles.get(state, "strong"))


def version_words(snapshot: Snapshot) -> str:
    """The newest version."""
    status = snapshot.status
    return "no model" if status is None or status.version is None else f"v{status.version}"


def online_words(snapshot: Snapshot) -> str:
    """How much of the fleet is there."""
    status = snapshot.status
    return "" if status is None else f"{status.nodes_online} of {status.nodes_known} online"


def header(snapshot: Snapshot, name: str, width: int) -> Words:
    """Which fleet, and how it is."""
    status = snapshot.status
    right: list[Piece] = [state_words(snapshot)]
    if snapshot.lost and status is not None:
        right.append((f"for {duration(snapshot.now - snapshot.lost_at)}", ""))
    elif status is not None:
        link: Piece = ("link ok", "good") if status.connected else ("link down", "bad")
        right += [(version_words(snapshot), ""), (online_words(snapshot), ""), link]
        if snapshot.rights.why_not:
            right.append(("read-only", "dim"))
    fleet = f"fleet {foreign(status.federation)}" if status else "no fleet"
    return frame.header(f"{fleet}  {name}", right, width)


def pause_words(snapshot: Snapshot) -> str:
    """What `p` does now; empty where it does nothing."""
    if not snapshot.rights.may_command or snapshot.status is None:
        return ""
    return {"folding": "Pause", "paused": "Go on"}.get(snapshot.status.state, "")


def keys(snapshot: Snapshot, room: str, width: int, *, own: tuple[tuple[str, str], ...] = ()) -> Words:
    """What is possible here; the other screens first, and never without help.

    Args:
        snapshot: what may be done, and what `p` does.
        room: the screen that is open.
        width: columns.
        own: keys of the screen itself.
    """
    if width < NARROW:
        return frame.keys((), (), width)
    possible = [each for each in own if snapshot.rights.may_command or each[0] in LOOKS]
    if words := pause_words(snapshot):
        possible.append(("p", words))
    if words == "Go on":
        possible.append(("e", "Release"))
    possible.append(("/", "Find"))
    return frame.keys([each for name, each in ROOMS.items() if name != room], possible, width)


def brief(snapshot: Snapshot, width: int, height: int) -> Words:
    """The honest lines of a terminal that is too small for the screens."""
    status = snapshot.status
    lines = []
    if status is not None:
        heard = "last heard: " if snapshot.lost else ""
        rights = "" if snapshot.lost or snapshot.rights.may_command else "  read-only"
        lines.append(line(heard, version_words(snapshot), "  ", online_words(snapshot), rights))
        lines.append(line(f"{foreign(status.metric)} {number(status.score)} held out"))
    for alert in found(snapshot)[:1]:
        lines.extend(line(each) for each in wrapped(f"! {alert.words}", width, "  "))
    shown = [line(fit(text(each), width)) for each in lines[: max(1, height - 1)]]
    return (*shown, line(("more in 60 columns by 18 rows", "dim"))) if height > len(shown) else tuple(shown)
