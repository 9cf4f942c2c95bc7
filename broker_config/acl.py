"""The table of rights as Mosquitto's ACL; pure."""

from __future__ import annotations

from collections.abc import Sequence

from broker_config.rights import AGGREGATOR, EVERYTHING, NODE, OBSERVER, Role, site, topic, withheld
from fieldfold.wire.topics import ROOT

_HEADER = """\
# Who may say and hear what. %u is the certificate's common name; + stands for any federation of this broker.
# Mosquitto warns at start of the three patterns without %u: they are meant, every identity may read these topics.
"""


def standing_rules() -> str:
    """The rules that a new folder begins with."""
    return "\n".join((_HEADER, patterns(NODE), user(AGGREGATOR), user(OBSERVER)))


def patterns(role: Role) -> str:
    """Rules for whoever connects, each under its own name."""
    lines = [f"# {role.about}"]
    lines += [f"pattern write {topic(right, me='%u')}" for right in role.writes]
    lines += [f"pattern read {topic(right, me='%u')}" for right in role.reads]
    return "\n".join(lines) + "\n"


def user(role: Role, federation: str = "+") -> str:
    """Rules for one name; patterns hold for it too, so that what it must not is denied first."""
    lines = [f"# {role.about}", f"user {role.name}", f"topic deny {topic(f'node/{role.name}/#')}"]
    lines += [f"topic deny {topic(right)}" for right in withheld(role)]
    lines += [f"topic read {_readable(right, federation)}" for right in role.reads]
    lines += [f"topic write {topic(right, federation)}" for right in role.writes]
    return "\n".join(lines) + "\n"


def site_rules(nodes: Sequence[str], federation: str) -> str:
    """The whole ACL of a site's own broker: its gateways, each under its name, and nobody else."""
    lines = ["# Nobody but the gateways of this site may say or hear anything. Written at the centre."]
    for name in nodes:
        rights = site(name, (name,))  # of one gateway it is what that gateway itself may
        lines.append(f"\nuser {name}")
        lines += [f"topic read {topic(right, federation)}" for right in rights.reads]
        lines += [f"topic write {topic(right, federation)}" for right in rights.writes]
    return "\n".join(lines) + "\n"


def _readable(right: str, federation: str) -> str:
    return f"{ROOT}/#" if right == EVERYTHING else topic(right, federation)
