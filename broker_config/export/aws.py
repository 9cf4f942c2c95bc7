"""AWS IoT Core: policies in the place of access rules, and the limits that a federation meets there.

A policy may have 2048 characters, so that a role has several: as whom it connects, what it says, keeps, asks for and
hears.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from broker_config.rights import AGGREGATOR, NODE, OBSERVER, Role, topic

REGION, ACCOUNT = "REGION", "ACCOUNT"
COMMON_NAME = "${iot:Certificate.Subject.CommonName}"

_NOTES = """\
Put your own REGION and ACCOUNT. Register ca/ca.crt as a CA, each client's certificate as an active one, and
attach to it all policies of its role. What a client may do follows the name in its certificate, which it
cannot choose. A Thing for each is optional; call it fieldfold-FEDERATION-NODE, as the client id is.
Payloads end at 128 kB: message_bytes under [broker] is 61440 by default, leave it below 131072.
Topics have at most 7 slashes and 256 bytes; fieldfold's have 5 and 200.
A connection may send 100 messages and 512 kB a second: messages_per_s = 90 and bytes_per_s = 450000, the
defaults, keep below. keepalive_s is 30 to 1200 there.
Retained messages are counted for the account: a federation keeps one for each node's status, the chunks of
its bundle, one snapshot and the deltas since. Where the quota is small, lower release.snapshot_every.
A session of a client that is away is kept for an hour, unless you raise it, up to 7 days. Nothing is lost: a
gateway reads what it missed from retained messages, and sends again what has no receipt.
QoS 2, $SYS and overlapping subscriptions are not there; fieldfold uses none.
To revoke, make the certificate inactive and end its connection; there is no CRL. Changed policies take
minutes."""
_WITHOUT = (
    "{name} has no policies here: the topics of a site's gateways do not fit into what one certificate may have."
)

SESSIONS = {NODE: ("", "-doctor"), AGGREGATOR: ("", "-lookout"), OBSERVER: ("",)}
"""What a client's id ends with, one for each session that a program has; no pattern, which would fit another node."""


def aws(federation: str, sites: Sequence[Role] = ()) -> str:
    """A JSON object: the policies of each role, and what is to be known.

    Args:
        federation: its name.
        sites: for which there are no policies; they are named in what is to be known.
    """
    policies = {
        f"fieldfold-{federation}-{role.name}-{part}": {"Version": "2012-10-17", "Statement": statements}
        for role in (NODE, AGGREGATOR, OBSERVER)
        for part, statements in _parts(role, federation).items()
    }
    notes = [*_NOTES.splitlines(), *(_WITHOUT.format(name=role.name) for role in sites)]
    return json.dumps({"notes": notes, "policies": policies}, indent=2) + "\n"


def _parts(role: Role, federation: str) -> dict[str, list[dict[str, Any]]]:
    name = COMMON_NAME if role is NODE else role.name
    clients = [f"fieldfold-{federation}-{name}{end}" for end in SESSIONS[role]]
    granted = {
        "says": ("iot:Publish", "topic", role.writes, "*"),
        "keeps": ("iot:RetainPublish", "topic", role.retains, "*"),
        "asks": ("iot:Subscribe", "topicfilter", role.reads, "+"),
        "hears": ("iot:Receive", "topic", role.reads, "*"),
    }
    parts = {
        part: [_allow(action, kind, _named(rights, federation, plus=plus))]
        for part, (action, kind, rights, plus) in granted.items()
        if rights
    }
    return {"connects": [_allow("iot:Connect", "client", clients)], **parts}


def _named(rights: tuple[str, ...], federation: str, *, plus: str) -> list[str]:
    """In a policy * stands for anything; + and # stand for themselves, as they do in the filter of a subscription."""
    return [topic(right, federation, COMMON_NAME).replace("+", plus).replace("#", "*") for right in rights]


def _allow(action: str, kind: str, names: list[str]) -> dict[str, Any]:
    resources = [f"arn:aws:iot:{REGION}:{ACCOUNT}:{kind}/{name}" for name in names]
    return {"Effect": "Allow", "Action": action, "Resource": resources}
