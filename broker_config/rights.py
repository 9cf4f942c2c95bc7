"""Who may say and hear what: the one table from which every broker's access rules are made.

Topics are those below `fieldfold/F/`; ME is the name in the client's certificate, + and # as in MQTT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldfold.wire.topics import ROOT

ME = "{me}"
EVERYTHING = "#"


@dataclass(frozen=True)
class Role:
    """What one kind of client may do, and no more.

    Attributes:
        name: in the certificate; of NODE and RENEWAL, whatever the node is called.
        about: for whoever reads the rules.
        writes: where it may publish.
        reads: what it may hear.
        retains: of what it writes, what the broker keeps.
    """

    name: str
    about: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    retains: tuple[str, ...] = ()


NODE = Role(
    name="node",
    about="A node writes its own topics, hears what is for it, and reads what is released.",
    writes=(f"node/{ME}/key", f"node/{ME}/update", f"node/{ME}/status", f"node/{ME}/statistics"),
    reads=(f"node/{ME}/receipt", f"node/{ME}/command", "model/#", "task/#", "aggregator/#"),
    retains=(f"node/{ME}/key", f"node/{ME}/status"),
)
AGGREGATOR = Role(
    name="aggregator",
    about="The aggregator hears everything, releases, answers, and clears the status of a node that is gone.",
    writes=("model/#", "task/#", "aggregator/#", "node/+/receipt", "node/+/command", "node/+/status"),
    reads=(EVERYTHING,),
    retains=("model/#", "task/#", "aggregator/#", "node/+/status"),
)
OBSERVER = Role(
    name="observer",
    about="The observer is for dashboards: statuses, receipts and manifests; not the model itself, nor writing.",
    reads=(
        "node/+/status",
        "node/+/receipt",
        "model/manifest",
        "task/manifest",
        "aggregator/status",
        "aggregator/key",
    ),
)
RENEWAL = Role(
    name="node",
    about="A node asks the caretaker to renew its certificate, and gets it.",
    writes=(f"node/{ME}/renewal",),
    reads=(f"node/{ME}/certificate",),
)
CARETAKER = Role(
    name="broker",
    about="The broker's caretaker (beside Mosquitto) answers who was invited, and renews certificates.",
    writes=("enrol/+/answer", "node/+/certificate"),
    reads=("enrol/+/request", "node/+/renewal"),
)

LEAVES = {
    "model/#": ("model/manifest", "model/snapshot/#", "model/delta/#", "model/live/#"),
    "task/#": ("task/manifest", "task/bundle/#"),
    "aggregator/#": ("aggregator/status", "aggregator/key"),
}
"""What lies below a #, where somebody reads less than all of it."""


def site(name: str, nodes: Sequence[str]) -> Role:
    """A site's own broker, by its one identity: the rights of the gateways that it carries, and no others.

    It carries what they sign, and is believed nothing itself.
    """

    def theirs(*rights: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(right.replace(ME, node) for node in nodes for right in rights))

    return Role(
        name=name,
        about=f"A site carries what its gateways say and what is for them: {', '.join(nodes) or 'none'}.",
        writes=theirs(*NODE.writes, *RENEWAL.writes),
        reads=theirs(*NODE.reads, *RENEWAL.reads),
        retains=theirs(*NODE.retains),
    )


def topic(right: str, federation: str = "+", me: str = "") -> str:
    """The whole topic of a right, in one federation or (+) in any."""
    return f"{ROOT}/{federation}/{right.replace(ME, me)}"


def withheld(role: Role) -> list[str]:
    """What every node may read and `role` may not: to be denied where a rule cannot be given to nodes alone."""
    if EVERYTHING in role.reads:
        return []
    denied: list[str] = []
    for right in NODE.reads:
        if ME in right or right in role.reads:
            continue
        leaves = LEAVES.get(right, (right,))
        kept = [leaf for leaf in leaves if leaf not in role.reads]
        denied += [right] if len(kept) == len(leaves) else kept
    return denied
