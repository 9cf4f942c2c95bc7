"""Mutual TLS from three files, with every mistake named; from the standard library alone."""

from __future__ import annotations

import contextlib
import ssl
import stat
from pathlib import Path
from typing import cast

import msgspec

from fieldfold.errors import ConfigError, LinkError

MAX_PEM_BYTES = 1 << 20
# TLS 1.3 takes two exchanges, 1.2 three.
_HANDSHAKE_ROUNDS = 4

# X509_V_ERR_* of OpenSSL's x509_vfy.h, which the ssl module does not name.
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = frozenset({18, 19})
_UNKNOWN_ISSUER = frozenset({2, 20, 21, 27})
_WRONG_PURPOSE = 26
_WRONG_NAME = frozenset({62, 64})


class CertificateFacts(msgspec.Struct, frozen=True):
    """What a certificate says of its holder; its life in seconds since the epoch."""

    common_name: str
    begins_s: int
    expires_s: int


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer that shows `certificate` and believes only servers that `ca` has signed for their host name.

    Raises:
        LinkError: a file is missing, unreadable, not PEM or not one of a pair; the key may be read by others; the
            certificate has expired, is not valid yet, or is not a client's.
    """
    check_certificate(certificate, key)
    _require_pem(ca, "CERTIFICATE", "the CA's certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise LinkError(f"{ca}: is damaged: no certificate can be read from it", "copy ca.crt again") from None
    _load_pair(context, certificate, key)
    return context


def check_certificate(certificate: Path, key: Path, ca: Path | None = None) -> CertificateFacts:
    """Reads a client's certificate and proves, in a handshake with itself in memory, that a broker could accept it.

    Without `ca`, whether the broker trusts the authority that signed it is the broker's to say; with it, that
    authority must be the one.

    Raises:
        LinkError: as for `client_context`.
    """
    _require_pem(certificate, "CERTIFICATE", "the certificate")
    _require_pem(key, "PRIVATE KEY", "the private key")
    _require_private(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_pair(server, certificate, key)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    server.load_verify_locations(ca or certificate)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # nothing leaves this process
    _load_pair(client, certificate, key)
    return _rehearse(client, server, certificate)


def require_name(certificate: Path, key: Path, name: str) -> None:
    """Refuses a certificate that was issued to somebody else: nobody would believe who shows it.

    Raises:
        LinkError: as for `client_context`.
        ConfigError: when it is another's.
    """
    found = check_certificate(certificate, key).common_name
    if found != name:
        raise ConfigError(
            f"name is {name}, but {certificate} was issued to {found}",
            f"set name to {found}, or give the certificate of {name}",
        )


def explain_tls_failure(error: BaseException, host: str) -> tuple[str, str]:
    """What went wrong between us and the broker at `host`, as (reason, hint), each one line.

    Knows failed verification of the broker, its alerts about us, ports without TLS, and connections that end early;
    for anything else the reason is the error's own text. In TLS 1.3 the alert about our certificate comes after our
    side of the handshake is done: who writes before reading may find the connection closed and the alert gone.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error.verify_code, error.verify_message, host)
    text = _normalised(error)
    for fragment, reason, hint in _ALERTS:
        if fragment in text:
            return reason.format(host=host), hint.format(host=host)
    return f"{host}: {_printable(error)}", ""


_RENEW = "have a new certificate made beside the broker and copy it here"
_COPY_AGAIN = "copy the folder identities/NAME from beside the broker again"
_PORT = "check the port in the broker's url; TLS is usually 8883"
_NAME = "check the broker's url and this machine's DNS"
_SEE_LOG = "most often it refuses our certificate, and its log says why; else another program has that port"

# Fragments of OpenSSL's names of alerts and errors; the first that occurs counts.
_ALERTS = (
    ("CERTIFICATE REQUIRED", "{host} asks for a certificate and was shown none", "set certificate and key"),
    ("ALERT CERTIFICATE EXPIRED", "{host} says that our certificate has expired or its clock is wrong", _RENEW),
    ("ALERT CERTIFICATE REVOKED", "{host} says that our certificate was revoked", "ask whoever runs the broker"),
    ("ALERT UNKNOWN CA", "{host} does not know the CA that signed our certificate", _COPY_AGAIN),
    ("ALERT BAD CERTIFICATE", "{host} refuses our certificate", _COPY_AGAIN),
    ("ALERT UNSUPPORTED CERTIFICATE", "{host} refuses our certificate: it is not a client's", _COPY_AGAIN),
    ("ALERT DECRYPT ERROR", "{host} could not verify our signature", _COPY_AGAIN),
    ("PROTOCOL VERSION", "{host} offers no TLS that is new enough", "have TLS 1.2 or newer enabled there"),
    ("UNSUPPORTED PROTOCOL", "{host} offers no TLS that is new enough", "have TLS 1.2 or newer enabled there"),
    (
        "HANDSHAKE FAILURE",
        "{host} ends the TLS handshake",
        "set certificate and key; else compare both sides' ciphers",
    ),
    ("WRONG VERSION NUMBER", "{host} does not speak TLS on this port", _PORT),
    ("RECORD LAYER FAILURE", "{host} does not speak TLS on this port", _PORT),
    ("HTTP REQUEST", "{host} does not speak TLS on this port", _PORT),
    ("EOF OCCURRED", "{host} closed the connection before MQTT began", _SEE_LOG),
    ("UNEXPECTED EOF", "{host} closed the connection before MQTT began", _SEE_LOG),
    ("CONNECTION RESET", "{host} closed the connection before MQTT began", _SEE_LOG),
    ("BROKEN PIPE", "{host} closed the connection before MQTT began", _SEE_LOG),
    ("CONNECTION REFUSED", "nobody listens at {host}", "check that the broker runs, and the port in its url"),
    ("TIMED OUT", "{host} does not answer", "check the address, the network and any firewall between"),
    ("NAME OR SERVICE NOT KNOWN", "the name {host} is not known here", _NAME),
    ("NO ADDRESS ASSOCIATED", "the name {host} is not known here", _NAME),
    ("NAME RESOLUTION", "the name {host} cannot be looked up at the moment", _NAME),
)


def _explain_verification(code: int, message: str, host: str) -> tuple[str, str]:
    if code == _EXPIRED:
        return f"the certificate of {host} has expired by this machine's clock", "renew it, or set the clock"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet by this machine's clock", "set the clock"
    if code in _WRONG_NAME:
        return (
            f"the certificate of the broker is not for the name {host}",
            f"use a name that it is for, or beside the broker: fieldfold broker init DIR --host {host}",
        )
    if code in _SELF_SIGNED or code in _UNKNOWN_ISSUER:
        return (
            f"the certificate of {host} is not signed by the CA that we trust",
            "is this the right broker? if so, take ca.crt from beside it",
        )
    if code == _WRONG_PURPOSE:
        return f"what {host} shows is not a server's certificate", "give the broker its server certificate"
    return f"the certificate of {host} does not verify: {message}", ""


def _rehearse(client: ssl.SSLContext, server: ssl.SSLContext, certificate: Path) -> CertificateFacts:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_HANDSHAKE_ROUNDS):
            for side in (near, far):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        shown = far.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise _unacceptable(certificate, error) from None
    except ssl.SSLError as error:
        raise LinkError(f"{certificate}: cannot be used: {_normalised(error).lower()}", _RENEW) from None
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", shown.get("subject", ()))
    names = dict(attribute for group in subject for attribute in group)
    begins_s, expires_s = (ssl.cert_time_to_seconds(str(shown[which])) for which in ("notBefore", "notAfter"))
    return CertificateFacts(names.get("commonName", ""), begins_s, expires_s)


def _unacceptable(certificate: Path, error: ssl.SSLCertVerificationError) -> LinkError:
    if error.verify_code == _EXPIRED:
        return LinkError(f"{certificate}: has expired by this machine's clock", f"{_RENEW}, or set the clock")
    if error.verify_code == _NOT_YET_VALID:
        return LinkError(f"{certificate}: is not valid yet by this machine's clock", "set the clock")
    if error.verify_code == _WRONG_PURPOSE:
        return LinkError(f"{certificate}: is not a client's certificate", _COPY_AGAIN)
    return LinkError(f"{certificate}: does not verify: {error.verify_message}", _RENEW)


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def refuse_passphrase() -> str:
        raise LinkError(f"{key}: is protected by a passphrase", "nobody is there to type it: store it without")

    try:
        context.load_cert_chain(certificate, key, password=refuse_passphrase)
    except ssl.SSLError as error:
        if "KEY VALUES MISMATCH" in _normalised(error) or "KEY TYPE MISMATCH" in _normalised(error):
            raise LinkError(f"{key}: does not belong to {certificate}", _COPY_AGAIN) from None
        what = f"{certificate} and {key}: cannot be used: {_normalised(error).lower()}"
        raise LinkError(what, _COPY_AGAIN) from None


def _require_pem(path: Path, kind: str, what: str) -> None:
    try:
        if path.stat().st_size > MAX_PEM_BYTES:
            raise LinkError(f"{path}: is too large to be {what}", "check the path")
        content = path.read_bytes()
    except FileNotFoundError:
        raise LinkError(f"{path}: {what} is not there", "check the path, or copy it from beside the broker") from None
    except OSError as error:
        raise LinkError(f"{path}: {what} cannot be read: {error.strerror}", "check its owner and mode") from None
    if f"{kind}-----".encode() not in content:
        raise LinkError(f"{path}: is not {what} in PEM form", _COPY_AGAIN)


def _require_private(key: Path) -> None:
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LinkError(f"{key}: the private key may be read by others (mode {mode:04o})", f"chmod 600 {key}")


def _printable(error: BaseException) -> str:
    """The error's own text, without what a hostile peer may have put into it for a log or a terminal."""
    text = "".join(character if character.isprintable() else " " for character in str(error)[:200])
    return text.strip() or type(error).__name__


def _normalised(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return f"{reason if isinstance(reason, str) else ''} {error}".upper().replace("_", " ").strip()
