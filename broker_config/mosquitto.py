"""Mosquitto's configuration and access rules as text, and how to start it with them.

The settings were checked with real clients on Mosquitto 2.0.11 (Debian 12) and 2.1.2. Where the access rules
speak of a federation they say `+`, so that several may live on one broker.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from broker_config.folder import PRIVATE_FILE, PRIVATE_FOLDER, BrokerFolder, replace_file
from fieldfold.errors import ConfigError

SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"

_LISTENER = re.compile(r"^listener[ \t]+(\d{1,5})(?:[ \t]+(\S+))?[ \t]*$", re.MULTILINE)
_AUTHORITY = re.compile(r"^cafile[ \t]+\S.*$", re.MULTILINE)
_CRL = re.compile(r"^crlfile[ \t]+\S", re.MULTILINE)
_USER = re.compile(r"^user[ \t]+\S", re.MULTILINE)

_CONFIGURATION = """\
# Mosquitto for fieldfold. `fieldfold broker run {root}` starts it; yours to edit, no later init overwrites it.

# Nobody without a certificate; what each may say and hear stands in the ACL.
allow_anonymous false
acl_file {acl}

# Sessions, queues and retained messages outlive a restart. The default saves every 30 minutes; kill -9 loses what
# came since. Saving on every change would rewrite the whole database for each chunk.
persistence true
persistence_location {data}/
autosave_on_changes false
autosave_interval 15
# No persistent_client_expiration: this version counts a session twice that ends by itself and whose client is away
# while the rules are reloaded, and may crash when it has ended.

# Per client. The default of 1000 messages silently drops chunks that were already acknowledged to the sender.
max_queued_messages 100000
# What one absent client may cost in memory; beyond it messages drop, and nodes send again for want of a receipt.
max_queued_bytes 536870912
# What a publisher may have on its way unacknowledged; also sent at once to an MQTT 3.1.1 subscriber (20 by default).
max_inflight_messages 64
# The largest chunk a configuration may ask for (1 MiB) and its header; the default sends up to 256 MB.
max_packet_size 1114112
# As much as a node's configuration may ask for.
max_keepalive 3600

# Receipts and acknowledgements are small and waited for.
set_tcp_nodelay true

log_dest stderr
log_type error
log_type warning
log_type notice
log_timestamp_format %Y-%m-%dT%H:%M:%S

# The port, and the address it is bound to: none means every one of this machine.
{listener}
# TLS 1.2 or newer on both sides; the certificate's common name is the user name, whatever the client claims.
cafile {ca_certificate}
crlfile {crl}
certfile {server_certificate}
keyfile {server_key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
"""


@dataclass(frozen=True)
class Listener:
    """A port and the address it is bound to; an empty address means all of this machine."""

    port: int
    address: str = ""

    @property
    def url(self) -> str:
        """How it is reached from this machine."""
        host = self.address or "127.0.0.1"
        return f"mqtts://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __str__(self) -> str:
        return f"listener {self.port} {self.address}".rstrip()


def configuration(folder: BrokerFolder, listener: Listener) -> str:
    """The text of mosquitto.conf for `folder`, with absolute paths."""
    return _CONFIGURATION.format(
        root=folder.root,
        acl=folder.acl,
        data=folder.data,
        listener=listener,
        ca_certificate=folder.ca_certificate,
        server_certificate=folder.server_certificate,
        server_key=folder.server_key,
        crl=folder.crl,
    )


def listeners(text: str) -> list[Listener]:
    """Every listener of a mosquitto.conf."""
    return [Listener(int(port), address or "") for port, address in _LISTENER.findall(text)]


def with_listener(text: str, listener: Listener) -> str:
    """The configuration with its first listener exchanged and all else as it was edited.

    Raises:
        ConfigError: when there is no listener to exchange.
    """
    changed, count = _LISTENER.subn(str(listener), text, count=1)
    if not count:
        raise ConfigError("mosquitto.conf has no line `listener PORT`", f"write one: {listener}")
    return changed


def with_revocation_list(text: str, folder: BrokerFolder) -> str:
    """The configuration with the CRL named beside the authority of its first listener, where it names none."""
    if _CRL.search(text):
        return text
    return _AUTHORITY.sub(lambda line: f"{line[0]}\ncrlfile {folder.crl}", text, count=1)


def find_mosquitto() -> Path | None:
    """The program, also where it lies outside an ordinary user's PATH."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_FOLDERS)
    return Path(found) if found else None


def command_line(program: Path, folder: BrokerFolder) -> list[str]:
    """How to start `program` in the foreground, able to read its keys.

    Started as root, Mosquitto becomes the user `mosquitto`, whom no key here belongs to. So root gets a derived
    configuration that names the keys' owner; the written one stays as it is.

    Raises:
        ConfigError: when the configuration cannot be read or the derived one not be written.
    """
    configuration_path = folder.configuration
    try:
        text = configuration_path.read_text(encoding="utf-8")
        if os.geteuid() == 0 and not _USER.search(text):
            configuration_path = _derived_configuration(folder, text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder.root}: cannot be started from: {error}", "check its files and owner") from None
    return [str(program), "-c", str(configuration_path)]


def _derived_configuration(folder: BrokerFolder, text: str) -> Path:
    owner = folder.server_key.stat()
    # An owner without an entry in /etc/passwd cannot be named; root reads everything.
    known = {entry.pw_uid: entry.pw_name for entry in pwd.getpwall()}
    if folder.runtime.is_symlink():
        raise ConfigError(f"{folder.runtime}: is a link, and root follows none here", "remove it")
    folder.runtime.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    derived = folder.runtime / "mosquitto.conf"
    replace_file(derived, f"user {known.get(owner.st_uid, 'root')}\n{text}".encode(), PRIVATE_FILE)
    for path in (folder.runtime, derived):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return derived
