"""EMQX 5: a listener with mutual TLS, the certificate's common name as user name, and rules in a file."""

from __future__ import annotations

from collections.abc import Sequence

from broker_config.rights import AGGREGATOR, NODE, OBSERVER, Role, topic

_SETTINGS = """\
## -- into etc/emqx.conf --
## Copy ca/ca.crt and server/ from the broker's folder to etc/certs/fieldfold/.

listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.wss.default.enable = false
listeners.ssl.default {
  bind = "0.0.0.0:8883"
  ssl_options {
    cacertfile = "etc/certs/fieldfold/ca.crt"
    certfile = "etc/certs/fieldfold/server.crt"
    keyfile = "etc/certs/fieldfold/server.key"
    versions = ["tlsv1.3", "tlsv1.2"]
    verify = verify_peer
    fail_if_no_peer_cert = true
  }
}
mqtt {
  peer_cert_as_username = cn
  max_packet_size = "1114112B"
  max_mqueue_len = 100000
  max_inflight = 64
  session_expiry_interval = "14d"
}
authorization {
  no_match = deny
  deny_action = ignore
  sources = [{ type = file, enable = true, path = "etc/fieldfold-acl.conf" }]
}
## No authenticator: who has a certificate of this authority is in, and the rules say what it may.
authentication = []

"""
_RULES = """\
%% -- etc/fieldfold-acl.conf, the only source of authorization; the first rule that fits decides --
"""


def emqx(federation: str, sites: Sequence[Role] = ()) -> str:
    """Listener and rules for one federation.

    Args:
        federation: its name.
        sites: what each site's broker may do.
    """
    standing = (AGGREGATOR, OBSERVER, *sites)
    rules = [rule for role in standing for rule in _of(role, f'{{username, "{role.name}"}}', federation)]
    names = "|".join((*(role.name for role in standing), "broker"))
    rules.append(f'{{deny, {{username, {{re, "^({names})$"}}}}, all, ["#"]}}.\n')
    rules += [*_of(NODE, "all", federation), "{deny, all}.\n"]
    return _SETTINGS + _RULES + "\n" + "".join(rules)


def _of(role: Role, who: str, federation: str) -> list[str]:
    rules = [f"%% {role.about}\n"]
    for action, rights in (("publish", role.writes), ("subscribe", role.reads)):
        topics = ",\n  ".join(f'"{topic(right, federation, "${username}")}"' for right in rights)
        rules += [f"{{allow, {who}, {action}, [\n  {topics}\n]}}.\n"] if rights else []
    return [*rules, "\n"]
