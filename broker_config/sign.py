"""`fieldfold broker sign`: a certificate for a key that was made elsewhere and cannot be asked over the broker."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from broker_config.certificates import sign_for
from broker_config.enrolment import key_to_sign
from broker_config.folder import PRIVATE_FOLDER, PUBLIC_FILE, replace_file
from broker_config.members import changing, read_members, serials_of, write_members
from fieldfold.errors import ConfigError
from fieldfold.wire.topics import check_node_name

MAX_REQUEST_BYTES = 1 << 16


def sign(root: Path, node: str, request: Path) -> str:
    """Signs a request (PKCS #10, PEM) for `node`, and returns the certificate (PEM).

    Raises:
        ConfigError: a name that is not allowed or taken, a request that is not for it, or a folder that is not fit.
    """
    name = check_node_name(node)
    try:
        with request.open("rb") as file:
            csr = file.read(MAX_REQUEST_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{request}: cannot be read: {error}", "give a certificate request in PEM form") from None
    key = key_to_sign(csr, name)
    if isinstance(key, str):
        raise ConfigError(f"{request}: {key}", f"make one for the common name {name}, with a key on P-256")
    now = datetime.now(UTC)
    with changing(root) as (folder, authority):
        members = read_members(folder)
        if serials_of(folder, members, name):
            raise ConfigError(f"{name} has a certificate already", f"first: fieldfold broker revoke {name}")
        pem = sign_for(authority, key, name, now).public_bytes(Encoding.PEM)
        path = folder.enrolled_certificate(name)
        path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        replace_file(path, pem, PUBLIC_FILE)
        back = tuple(each for each in members.out if each != name)
        write_members(folder, authority, msgspec.structs.replace(members, out=back), now)
    return pem.decode("ascii")
