"""What becomes of a request for a certificate. One invitation signs one key; every refusal says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker_config.certificates import KeyPair, sign_for
from broker_config.members import Members, OpenInvitation
from fieldfold.trust.invitation import EnrolmentAnswer, EnrolmentRequest, digest_of, is_authentic

MAX_FAILURES = 5
"""Requests with a wrong authentication code; the invitation is void after them."""

_ANOTHER = "ask whoever runs the broker for another: fieldfold broker invite {node}"


@dataclass(frozen=True)
class Decided:
    """What to write into the books (None: nothing), what certificate was signed, and what to answer."""

    answer: EnrolmentAnswer
    members: Members | None = None
    certificate: x509.Certificate | None = None


def decide(
    request: EnrolmentRequest, members: Members, issued: bytes | None, authority: KeyPair, now: datetime
) -> Decided | None:
    """Judges one request; None where nobody is known who could believe an answer.

    Args:
        request: whose `id` is the one in its topic.
        members: the books.
        issued: the certificate (PEM) that the invited node has now, to be given again for the same request.
        authority: signs.
        now: by the broker's clock.
    """
    invitation = members.invitation(request.id)
    if invitation is None:
        return None
    if refusal := _unfit(request, invitation, now):
        return Decided(_refused(request, invitation, refusal))
    if not is_authentic(request, bytes.fromhex(invitation.secret)):
        counted = msgspec.structs.replace(invitation, failures=invitation.failures + 1)
        reason = "the request does not come from who holds the invitation"
        return Decided(_refused(request, invitation, reason), members.with_invitation(counted))
    if invitation.request and issued:
        return Decided(_signed(request, issued.decode("ascii")))
    key = key_to_sign(request.csr, invitation.node)
    if isinstance(key, str):
        return Decided(_refused(request, invitation, key))
    return _sign(request, invitation, members, sign_for(authority, key, invitation.node, now), now)


def _unfit(request: EnrolmentRequest, invitation: OpenInvitation, now: datetime) -> str:
    """Why nobody can use the invitation for this request; empty where somebody may."""
    if now.timestamp() >= invitation.expires_s:
        return "the invitation has expired"
    if invitation.failures >= MAX_FAILURES:
        return "the invitation is void: too many requests were not authentic"
    if invitation.request not in {"", digest_of(request.csr)}:
        return "the invitation was used already, for another key"
    return ""


def _sign(
    request: EnrolmentRequest,
    invitation: OpenInvitation,
    members: Members,
    certificate: x509.Certificate,
    now: datetime,
) -> Decided:
    used = msgspec.structs.replace(invitation, request=digest_of(request.csr))
    changed = members.with_invitation(used).with_revoked(invitation.replaces, invitation.node, now.timestamp())
    back = tuple(name for name in changed.out if name != invitation.node)
    pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
    return Decided(_signed(request, pem), msgspec.structs.replace(changed, out=back), certificate)


def key_to_sign(csr: str, node: str) -> ec.EllipticCurvePublicKey | str:
    """The public key of a request, or why it is not signed."""
    try:
        read = x509.load_pem_x509_csr(csr.encode("ascii"))
        key = read.public_key()
        names = [str(each.value) for each in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        is_signed = read.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return "what came is not a certificate request"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return "the key is not one on the curve P-256"
    if not is_signed:
        return "the request is not signed with its own key"
    if names != [node]:
        return f"the request names another than {node}"
    return key


def _signed(request: EnrolmentRequest, certificate: str) -> EnrolmentAnswer:
    return EnrolmentAnswer(id=request.id, request=digest_of(request.csr), certificate=certificate)


def _refused(request: EnrolmentRequest, invitation: OpenInvitation, reason: str) -> EnrolmentAnswer:
    hint = _ANOTHER.format(node=invitation.node)
    return EnrolmentAnswer(id=request.id, request=digest_of(request.csr), reason=reason, hint=hint)
