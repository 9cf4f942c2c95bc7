"""New certificates for old keys: for all that lies beside the broker, and for a node that asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.certificates import (
    KeyPair,
    PublicKey,
    issue_server,
    read_certificate,
    read_key_pair,
    server_hosts,
    sign_for,
)
from broker_config.folder import PUBLIC_FILE, BrokerFolder, replace_file
from broker_config.members import changing, read_members, serial_of, write_members
from fieldfold.trust.renewal import RENEW_WITHIN_S, is_due

RENEW_WITHIN = timedelta(seconds=RENEW_WITHIN_S)


def is_ending(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is to be renewed."""
    begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return is_due(begins.timestamp(), expires.timestamp(), now.timestamp())


def renew(root: Path, *, everything: bool = False) -> list[str]:
    """Renews what ends soon, or `everything`, beside the broker; keys stay as they are.

    The former certificates are good until they end, so that nothing stops; copied identities are copied again before.

    Returns:
        the names that were renewed; the broker's own certificate is called `(broker)`.

    Raises:
        ConfigError: a file that is damaged, or an authority that has expired.
    """
    now, renewed = datetime.now(UTC), []
    with changing(root) as (folder, authority):
        server = read_key_pair(folder.server_certificate, folder.server_key)
        if everything or is_ending(server.certificate, now):
            fresh = issue_server(authority, server_hosts(server.certificate), now, server.key)
            replace_file(folder.server_certificate, fresh.certificate_pem, PUBLIC_FILE)
            renewed.append("(broker)")
        members = read_members(folder)
        for name in folder.identity_names():
            path = folder.identity(name).certificate
            if not everything and not is_ending(read_certificate(path), now):
                continue
            pair = read_key_pair(path, folder.identity(name).key)
            members = msgspec.structs.replace(members, earlier={**members.earlier, serial_of(path): name})
            write_members(folder, authority, members, now)
            certificate = sign_for(authority, pair.key.public_key(), name, now)
            replace_file(path, certificate.public_bytes(Encoding.PEM), PUBLIC_FILE)
            renewed.append(name)
        write_members(folder, authority, members, now)  # the broker reads its certificate again
    return renewed


def certificate_for(folder: BrokerFolder, authority: KeyPair, node: str, now: datetime) -> str | None:
    """The newest certificate (PEM) of a node that asks for it; made for the same key where the present one ends soon.

    None where nobody of that name is known here.

    Raises:
        ConfigError: a file that is damaged, or an authority that has expired.
    """
    members = read_members(folder)
    paths = (folder.enrolled_certificate(node), folder.identity(node).certificate)
    path = next((each for each in paths if each.is_file()), None)
    if path is None or node in members.out:
        return None
    present = read_certificate(path)
    key = present.public_key()
    if is_ending(present, now) and isinstance(key, PublicKey):
        earlier = {**members.earlier, serial_of(path): node}
        write_members(folder, authority, msgspec.structs.replace(members, earlier=earlier), now)
        present = sign_for(authority, key, node, now)
        replace_file(path, present.public_bytes(Encoding.PEM), PUBLIC_FILE)
    return present.public_bytes(Encoding.PEM).decode("ascii")
