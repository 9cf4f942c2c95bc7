"""What stands around every screen: the header, the footer, and the two lines for a very small terminal. Pure."""

from __future__ import annotations

from typing import Final

from fieldfold.cli.figures import duration, number
from fieldfold.terminal import frame
from fieldfold.terminal.words import Piece, Role, Words, fit, foreign, line, text, wrapped
from node_app.status import NodeStatus
from node_app.tui.alerts import alerts
from node_app.tui.snapshot import Snapshot

ROOMS: Final = {
    "overview": ("o", "Overview"),
    "data": ("d", "Data"),
    "training": ("t", "Training"),
    "model": ("m", "Model"),
    "network": ("n", "Network"),
    "log": ("l", "Log"),
}
"""Screen -> its key and its name."""
NARROW: Final = 60
KEYS: Final = """\
o d t m n l    Overview, Data, Training, Model, Network, Log
tab, right     the next screen; shift+tab, left or h: the one before
up down, j k   move in a list; page up and down; home, end, g, G
/              find in a list; escape shows all again
enter          the whole row
f              stay at the newest row, or no longer
c, y           copy the row, or all panes, to your clipboard (OSC 52)
p              pause training, after asking; or go on
b, i, w        on Model: roll back, pin or unpin, export
ctrl+p, :      every command by name, themes among them
?              this; q leaves: the daemon goes on without the screen"""


def state_words(snapshot: Snapshot) -> Piece:
    """The state in capitals, and how it is to be taken."""
    if snapshot.lost:
        return ("NOT REACHED", "bad")
    if snapshot.status is None:
        return ("ATTACHING", "dim")
    state = snapshot.status.state
    roles: dict[str, Role] = {
        "learning": "good",
        "learning for itself": "good",
        "following": "good",
        "paused": "warn",
        "needs attention": "bad",
    }
    return (foreign(state).upper(), roles.get(state, "strong"))


def version_words(status: NodeStatus) -> str:
    """The version held, and how far behind it is."""
    if status.version is None:
        return "no model"
    behind = max(0, (status.newest_version or 0) - status.version)
    return f"v{status.version}" + (f" ({behind} behind)" if behind else "")


def link_words(status: NodeStatus) -> Piece:
    """Whether the broker is there."""
    return ("link ok", "good") if status.connected else ("link down", "bad")


def header(snapshot: Snapshot, room: str, width: int) -> Words:
    """Who, where, and how it is; the right half is given up last."""
    status = snapshot.status
    right: list[Piece] = [state_words(snapshot)]
    if snapshot.lost and status is not None:
        right.append((f"for {duration(snapshot.now - snapshot.lost_at)}", ""))
    elif status is not None:
        right += [(version_words(status), ""), link_words(status)]
    if snapshot.rights.why_not and status is not None and not snapshot.lost:
        right.append(("read-only", "dim"))
    name = foreign(status.node) if status else "no node"
    return frame.header(f"fieldfold  {name}  {ROOMS[room][1]}", right, width)


def pause_words(snapshot: Snapshot) -> str:
    """What `p` does now; empty where it does nothing."""
    if not snapshot.rights.may_command or snapshot.status is None:
        return ""
    return {"paused": "Go on", "needs attention": "Look again"}.get(snapshot.status.state, "Pause")


def keys(
    snapshot: Snapshot, room: str, width: int, *, has_list: bool, own: tuple[tuple[str, str], ...] = ()
) -> Words:
    """What is possible here; the other screens first, and never without help.

    Args:
        snapshot: what may be done, and what `p` does.
        room: the screen that is open.
        width: columns.
        has_list: whether there is something to find in.
        own: keys of the screen itself that command something.
    """
    if width < NARROW:
        return frame.keys((), (), width)
    possible = list(own) if snapshot.rights.may_command else []
    if words := pause_words(snapshot):
        possible.append(("p", words))
    if has_list:
        possible.append(("/", "Find"))
    return frame.keys([each for name, each in ROOMS.items() if name != room], possible, width)


def brief(snapshot: Snapshot, width: int, height: int) -> Words:
    """The honest line or two of a terminal that is too small for the screens."""
    status = snapshot.status
    lines = []
    if status is not None:
        rights = "" if snapshot.lost or snapshot.rights.may_command else "  read-only"
        heard = "last heard: " if snapshot.lost else ""
        lines.append(line(heard, version_words(status), "  ", link_words(status), rights))
        lines.append(line(f"{foreign(status.metric)} {number(status.global_score)}  loss {number(status.loss)}"))
    for alert in alerts(snapshot)[:1]:
        lines.extend(line(each) for each in wrapped(f"! {alert.words}", width, "  "))
    room = max(1, height - 1)
    shown = [line(*((fit(text(each), width), "")[:1])) for each in lines[:room]]
    return (*shown, line(("more in 60 columns by 18 rows", "dim"))) if height > len(shown) else tuple(shown)
