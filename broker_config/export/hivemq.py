"""HiveMQ 4: a listener with mutual TLS, and roles for its File RBAC extension."""

from __future__ import annotations

from collections.abc import Sequence

from broker_config.rights import AGGREGATOR, NODE, OBSERVER, Role, topic

_HEADER = """\
<?xml version="1.0" encoding="UTF-8"?>
<!--
  1. conf/config.xml: the listener. Key store and trust store are made from the broker's folder:
       openssl pkcs12 -export -in server/server.crt -inkey server/server.key -name server -out server.p12
       keytool -importcert -noprompt -alias ca -file ca/ca.crt -keystore trust.jks

     <listeners>
       <tls-tcp-listener>
         <port>8883</port>
         <bind-address>0.0.0.0</bind-address>
         <tls>
           <protocols><protocol>TLSv1.3</protocol><protocol>TLSv1.2</protocol></protocols>
           <keystore><path>conf/server.p12</path><password>YOURS</password>
             <private-key-password>YOURS</private-key-password></keystore>
           <truststore><path>conf/trust.jks</path><password>YOURS</password></truststore>
           <client-authentication-mode>REQUIRED</client-authentication-mode>
         </tls>
       </tls-tcp-listener>
     </listeners>
     <mqtt>
       <packets><max-packet-size>1114112</max-packet-size></packets>
       <queued-messages><max-queue-size>100000</max-queue-size></queued-messages>
       <keep-alive><max-keep-alive>3600</max-keep-alive></keep-alive>
     </mqtt>

  2. extensions/hivemq-file-rbac-extension/conf/credentials.xml: this file. The extension knows clients by user name
     and password, not by certificate, so that each has both: put the password that you choose for a node into a file
     of its own on the gateway, and username = "NODE" and password_file = "FILE" under [broker] in node.toml. HASH is
     what the extension's password generator makes of it. Who has a certificate and another's password passes for the
     other; the Enterprise Security Extension takes the user name from the certificate, with these same permissions.
-->
<file-rbac>
"""
_USER = """\
    <user>
      <name>{name}</name>
      <password>HASH</password>
      <roles><id>{role}</id></roles>
    </user>
"""


def hivemq(federation: str, sites: Sequence[Role] = ()) -> str:
    """Listener, users and roles for one federation; one user is shown for a node, and each node gets its own.

    Args:
        federation: its name.
        sites: what each site's broker may do.
    """
    standing = (AGGREGATOR, OBSERVER, *sites)
    users = (*((role.name, role) for role in standing), ("press-07", NODE))
    shown = "".join(_USER.format(name=name, role=role.name) for name, role in users)
    roles = "".join(_role(role, federation) for role in (NODE, *standing))
    return f"{_HEADER}  <users>\n{shown}  </users>\n  <roles>\n{roles}  </roles>\n</file-rbac>\n"


def _role(role: Role, federation: str) -> str:
    permissions = "".join(
        f"        <permission><topic>{topic(right, federation, '${{username}}')}</topic>"
        f"<activity>{activity}</activity></permission>\n"
        for activity, rights in (("PUBLISH", role.writes), ("SUBSCRIBE", role.reads))
        for right in rights
    )
    return (
        f"    <role>\n      <!-- {role.about} -->\n      <id>{role.name}</id>\n      <permissions>\n{permissions}"
        "      </permissions>\n    </role>\n"
    )
