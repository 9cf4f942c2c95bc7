"""How a site's Mosquitto carries for its gateways: the bridge at the end of its configuration; pure."""

from __future__ import annotations

from pathlib import Path

from broker_config.rights import Role, topic

_BRIDGE = """
# -- The bridge to the centre. Each topic goes one way only, so that nothing comes back or twice. --
connection {name}
address {centre}
# The name in the certificate says who this is; the id is one that `fieldfold broker revoke` knows.
remote_clientid fieldfold-{federation}-{name}
bridge_protocol_version mqttv50
bridge_cafile {ca}
bridge_certfile {certificate}
bridge_keyfile {key}
# What gateways say during an outage waits here. The centre keeps what it retains, and nothing else: this version asks
# for no session there that outlives its connection, and gateways send again for want of a receipt.
cleansession false
# Not every broker knows the private bit, by which brokers tell a bridge.
try_private false
# Whether the bridge is up stands in $SYS of this broker; the centre grants no topic for it.
notifications true
notifications_local_only true
keepalive_interval 30
restart_timeout 1 10
"""


def bridge(role: Role, federation: str, centre: str, folder: Path) -> str:
    """The section of a site's mosquitto.conf by which it reaches the centre.

    Args:
        role: what the site may do there, and so what it carries.
        federation: its name.
        centre: `HOST:PORT` of the broker at the centre, no brackets around IPv6.
        folder: where the site's own folder will lie, absolute.
    """
    head = _BRIDGE.format(
        name=role.name,
        centre=centre,
        federation=federation,
        ca=folder / "ca" / "ca.crt",
        certificate=folder / f"{role.name}.crt",
        key=folder / f"{role.name}.key",
    )
    lines = [f"topic {topic(right, federation)} out 1" for right in role.writes]
    lines += [f"topic {topic(right, federation)} in 1" for right in role.reads]
    return head + "\n".join(lines) + "\n"
