"""`fieldfold broker renew`: new certificates for old keys, for all that lies beside the broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.certificates import issue_server, read_certificate, read_key_pair, server_hosts, sign_for
from broker_config.folder import PUBLIC_FILE, replace_file
from broker_config.members import changing, read_members, serial_of, write_members

RENEW_WITHIN = timedelta(days=60)


def renew(root: Path, *, everything: bool = False) -> list[str]:
    """Renews what ends within RENEW_WITHIN, or `everything`; keys stay as they are.

    The former certificates are good until they end, so that nothing stops; copied identities are copied again before.

    Returns:
        the names that were renewed; the broker's own certificate is called `(broker)`.

    Raises:
        ConfigError: a file that is damaged, or an authority that has expired.
    """
    now, renewed = datetime.now(UTC), []
    with changing(root) as (folder, authority):
        server = read_key_pair(folder.server_certificate, folder.server_key)
        if everything or server.certificate.not_valid_after_utc - now < RENEW_WITHIN:
            fresh = issue_server(authority, server_hosts(server.certificate), now, server.key)
            replace_file(folder.server_certificate, fresh.certificate_pem, PUBLIC_FILE)
            renewed.append("(broker)")
        members = read_members(folder)
        for name in folder.identity_names():
            path = folder.identity(name).certificate
            if not everything and read_certificate(path).not_valid_after_utc - now >= RENEW_WITHIN:
                continue
            pair = read_key_pair(path, folder.identity(name).key)
            members = msgspec.structs.replace(members, earlier={**members.earlier, serial_of(path): name})
            write_members(folder, authority, members, now)
            certificate = sign_for(authority, pair.key.public_key(), name, now)
            replace_file(path, certificate.public_bytes(Encoding.PEM), PUBLIC_FILE)
            renewed.append(name)
        write_members(folder, authority, members, now)  # the broker reads its certificate again
    return renewed
