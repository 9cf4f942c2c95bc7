"""`fieldfold node enroll`: from an invitation's code to an identity and a configuration, with a key made here.

Everything lies in a folder of its own until the certificate has come; then it becomes `identity` at one stroke. Said
again with the same code after a lost link or a kill, it goes on with the same key, and gets the same certificate.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fieldfold.errors import ConfigError, LinkError, WireError
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Connected, LinkConfig, Received, Refused
from fieldfold.trust.credentials import PINS_FILE
from fieldfold.trust.invitation import (
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    digest_of,
    is_authentic,
    parse,
    seal,
    shared_secret,
)
from fieldfold.trust.tls import check_certificate
from fieldfold.wire.topics import Topics

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
except ImportError:
    raise ConfigError(
        "enrolling makes a key, and needs the package cryptography, which is not installed here",
        "pip install 'fieldfold[enroll]'",
    ) from None

IDENTITY = "identity"
PATIENCE_S = 30.0
ASK_AGAIN_S = 1.0

_CONFIGURATION = """\
# Written by `fieldfold node enroll`; yours to edit. Every key: docs/CONFIGURATION.md.
name = "{node}"
federation = "{federation}"
{state}
[broker]
url = "{url}"
ca = "{identity}/ca.crt"
certificate = "{identity}/{node}.crt"
key = "{identity}/{node}.key"

[data]
files = ["{data}"]
"""


@dataclass(frozen=True)
class Enrolled:
    """What was made. `wrote_configuration`: none was there."""

    identity: Path
    expires: datetime
    wrote_configuration: bool


def enroll(
    invitation: Invitation, config: Path, *, data: str, again: bool = False, patience_s: float = PATIENCE_S
) -> Enrolled:
    """Gets a certificate for a key that is made here and stays here; writes `config` where it is missing.

    Args:
        invitation: from the code.
        config: node.toml; the folder `identity` comes to lie beside it.
        data: glob pattern for the configuration that is written; empty for none.
        again: an identity that is there already is replaced.
        patience_s: how long the broker's side may take.

    Raises:
        ConfigError: an identity or a configuration is there that does not go with the invitation.
        LinkError: the broker is not reached or refuses.
    """
    if time.time() >= invitation.expires_s:
        raise _expired(invitation)
    base = config.absolute().parent
    identity = base / IDENTITY
    if identity.exists() and not again:
        raise ConfigError(f"{identity}: is there already", "to replace it by the new one: --again")
    _require_agreement(invitation, config)
    staging = base / f".enrol-{invitation.id}"
    try:
        base.mkdir(mode=0o750, parents=True, exist_ok=True)
        staging.mkdir(mode=0o700, exist_ok=True)
        key = _key(staging / f"{invitation.node}.key")
        request = staging / "request.csr"
        certificate = _ask(invitation, _request(invitation, key, request), staging, patience_s)
        _write(staging / "ca.crt", _authority(invitation), 0o644)
        _write(staging / PINS_FILE, f"{invitation.aggregator.hex()}\n".encode(), 0o644)
        _write(staging / f"{invitation.node}.crt", certificate, 0o644)
        expires_s = _check(invitation, staging)
        request.unlink()
        if identity.exists():
            shutil.rmtree(identity)
        staging.rename(identity)
        wrote = bool(data) and not config.exists()
        if wrote:
            _write(config, _configuration(invitation, config, data).encode(), 0o644)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or base}: {error.strerror}", "choose another place with --config"
        ) from None
    return Enrolled(identity, datetime.fromtimestamp(expires_s, UTC), wrote)


def give_to(identity: Path, user: str) -> None:
    """Makes the daemon's user the owner of an identity that root enrolled.

    Raises:
        ConfigError: there is no such user, or we are not root.
    """
    try:
        for path in (identity, *identity.iterdir()):
            shutil.chown(path, user)
    except LookupError:
        raise ConfigError(f"there is no user {user} here", "give the one that runs the daemon") from None
    except OSError as error:
        raise ConfigError(f"{identity}: cannot be given to {user}: {error.strerror}", "run this as root") from None


def _require_agreement(invitation: Invitation, config: Path) -> None:
    """A configuration that is there must be for this node; it is not touched."""
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{config}: cannot be used: {error}", "correct it, or move it away") from None
    for key, invited in (("name", invitation.node), ("federation", invitation.federation)):
        if written.get(key) != invited:
            raise ConfigError(
                f"{config}: {key} is {written.get(key)!r}, and the invitation is for {invited!r}",
                "correct it, or choose another file with --config",
            )


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new key on P-256, or the one that an earlier attempt with this invitation made."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        known = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(known, ec.EllipticCurvePrivateKey):
            return known
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, _pem(key), 0o600)
    return key


def _request(invitation: Invitation, key: ec.EllipticCurvePrivateKey, path: Path) -> str:
    """PKCS #10; the one of an earlier attempt, since ECDSA would sign the same in other bytes."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, invitation.node)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    _write(path, pem, 0o644)
    return pem.decode("ascii")


def _ask(invitation: Invitation, csr: str, staging: Path, patience_s: float) -> bytes:
    """Sends the request until an authentic answer has come."""
    secret = shared_secret(invitation.key)
    request = EnrolmentRequest(id=invitation.id, csr=csr)
    topics = Topics(invitation.federation)
    link = MqttLink(
        _write_invitation(invitation, staging), client_id=f"fieldfold-enrol-{invitation.id}", base=staging
    )
    link.subscribe(topics.enrolment_answer(invitation.id))
    deadline_s, next_s = time.monotonic() + patience_s, float("inf")
    refusal: LinkError | None = None
    try:
        link.start()
        while (now_s := time.monotonic()) < deadline_s:
            if now_s >= next_s and link.is_up:
                link.publish(topics.enrolment_request(invitation.id), seal(request, secret))
                next_s = now_s + ASK_AGAIN_S
            with contextlib.suppress(queue.Empty, WireError):
                event = link.events.get(timeout=0.1)
                if isinstance(event, Connected):
                    next_s = 0.0
                elif isinstance(event, Refused):
                    refusal = _refused(invitation, event)
                    if not link.is_up:
                        raise refusal
                elif isinstance(event, Received) and (answer := _answer(event, request, secret)):
                    return _certificate(answer, staging)
    finally:
        link.stop()
        for file in staging.glob("invitation.*"):
            file.unlink()
    # A broker takes a moment to learn of an invitation, so what it forbids at first is asked again.
    raise refusal or LinkError(
        f"nobody at {invitation.url} answers the request",
        "see that the broker runs (fieldfold broker run), then say the same again: the code is still good",
    )


def _answer(event: Received, request: EnrolmentRequest, secret: bytes) -> EnrolmentAnswer | None:
    answer = parse(event.payload, EnrolmentAnswer)
    ours = answer.id == request.id and answer.request == digest_of(request.csr)
    return answer if ours and is_authentic(answer, secret) else None


def _certificate(answer: EnrolmentAnswer, staging: Path) -> bytes:
    if not answer.certificate:
        shutil.rmtree(staging)  # its key will never be signed
        raise LinkError(answer.reason, answer.hint)
    return answer.certificate.encode()


def _refused(invitation: Invitation, event: Refused) -> LinkError:
    if time.time() >= invitation.expires_s:
        return _expired(invitation)
    return LinkError(event.reason, f"the invitation may be withdrawn: fieldfold broker invite {invitation.node}")


def _expired(invitation: Invitation) -> LinkError:
    ended = datetime.fromtimestamp(invitation.expires_s, UTC)
    return LinkError(
        f"the invitation expired at {ended:%Y-%m-%d %H:%M} UTC by this machine's clock",
        f"set the clock, or ask for another: fieldfold broker invite {invitation.node}",
    )


def _write_invitation(invitation: Invitation, staging: Path) -> LinkConfig:
    """The invitation's own identity, for as long as the request takes."""
    key = ec.derive_private_key(int.from_bytes(invitation.key, "big"), ec.SECP256R1())
    certificate = x509.load_der_x509_certificate(invitation.certificate)
    _write(staging / "invitation.ca.crt", _authority(invitation), 0o644)
    _write(staging / "invitation.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(staging / "invitation.key", _pem(key), 0o600)
    return LinkConfig(
        url=invitation.url,
        ca="invitation.ca.crt",
        certificate="invitation.crt",
        key="invitation.key",
        session_expiry_s=0,
    )


def _authority(invitation: Invitation) -> bytes:
    return x509.load_der_x509_certificate(invitation.ca).public_bytes(serialization.Encoding.PEM)


def _check(invitation: Invitation, staging: Path) -> int:
    """The new certificate is ours, for our name, of the authority in the code; when it ends, in seconds."""
    path = staging / f"{invitation.node}.crt"
    facts = check_certificate(path, staging / f"{invitation.node}.key")
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(
            x509.load_der_x509_certificate(invitation.ca)
        )
    except (ValueError, TypeError, InvalidSignature):
        raise LinkError("the certificate that came is not of the authority in the code", "ask for another") from None
    if facts.common_name != invitation.node:
        raise LinkError(f"the certificate that came is for {facts.common_name!r}", "ask for another invitation")
    return facts.expires_s


def _configuration(invitation: Invitation, config: Path, data: str) -> str:
    is_a_service = config.absolute().is_relative_to("/etc")  # its unit names the state folder, and nothing else
    return _CONFIGURATION.format(
        node=invitation.node,
        federation=invitation.federation,
        state="" if is_a_service else 'state_dir = "state"\n',
        url=invitation.url,
        identity=IDENTITY,
        data=data.replace("\\", "\\\\").replace('"', '\\"'),
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Through to the disk, under its name only when it is whole."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
