"""What becomes of a request, decided without a broker."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from broker_config.certificates import new_authority
from broker_config.enrolment import MAX_FAILURES, Decided, decide
from broker_config.members import Members, OpenInvitation
from fieldfold.trust.invitation import EnrolmentRequest, is_authentic, parse, seal, shared_secret

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = shared_secret(bytes(32))
AUTHORITY = new_authority(NOW)
OPEN = OpenInvitation(
    id="abcdefghij234567",
    node="press-07",
    federation="plant",
    expires_s=int(NOW.timestamp()) + 3600,
    serial="1f",
    secret=SECRET.hex(),
    replaces=("2a",),
)


def csr(name: str = "press-07", key: CertificateIssuerPrivateKeyTypes | None = None) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


GOOD_DER = x509.load_pem_x509_csr(csr().encode()).public_bytes(Encoding.DER)


def request(csr: str, secret: bytes = SECRET) -> EnrolmentRequest:
    return parse(seal(EnrolmentRequest(id=OPEN.id, csr=csr), secret), EnrolmentRequest)


def judged(asked: EnrolmentRequest, members: Members, issued: str = "", later: timedelta = timedelta(0)) -> Decided:
    decided = decide(asked, members, issued.encode(), AUTHORITY, NOW + later)
    assert decided is not None
    return decided


def test_the_key_of_who_holds_the_invitation_is_signed_for_the_invited_name() -> None:
    decided = judged(request(csr()), Members((OPEN,), out=("oven-01", "press-07")))

    certificate = x509.load_pem_x509_certificate(decided.answer.certificate.encode())
    assert [each.value for each in certificate.subject] == ["press-07"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(AUTHORITY.certificate)
    assert decided.members is not None
    assert [each.serial for each in decided.members.revoked] == ["2a"]
    assert decided.members.out == ("oven-01",)


def test_the_same_request_is_answered_with_the_same_certificate() -> None:
    asked = request(csr())
    first = judged(asked, Members((OPEN,)))
    assert first.members is not None

    again = judged(asked, first.members, first.answer.certificate)

    assert again.answer == first.answer
    assert again.members is None


def test_extensions_that_a_request_asks_for_are_not_given() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "press-07")])
    greedy = x509.CertificateSigningRequestBuilder().subject_name(subject)
    greedy = greedy.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = greedy.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    signed = judged(request(pem), Members((OPEN,))).certificate

    assert signed is not None
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    ("csr", "reason"),
    [
        (csr("aggregator"), "names another than press-07"),
        (csr("press-08"), "names another than press-07"),
        (csr(key=rsa.generate_private_key(65537, 2048)), "not one on the curve P-256"),
        (csr(key=ec.generate_private_key(ec.SECP384R1())), "not one on the curve P-256"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "not a certificate request",
        ),
        ("\u20ac", "not a certificate request"),
        ("", "not a certificate request"),
    ],
)
def test_a_request_that_is_not_what_was_invited_is_refused_and_costs_nothing(csr: str, reason: str) -> None:
    decided = judged(request(csr), Members((OPEN,)))

    assert reason in decided.answer.reason
    assert "fieldfold broker invite press-07" in decided.answer.hint
    assert decided.members is None
    assert decided.certificate is None


def test_a_request_whose_signature_is_not_its_own_keys_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(csr().encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()

    assert "own key" in judged(request(broken), Members((OPEN,))).answer.reason


@given(st.binary(min_size=1, max_size=8), st.integers(0, 1 << 12))
def test_a_request_with_any_bytes_changed_is_answered_and_never_an_error(changed: bytes, at: int) -> None:
    at %= len(GOOD_DER)
    der = (GOOD_DER[:at] + changed + GOOD_DER[at + len(changed) :])[: len(GOOD_DER)]
    pem = (
        f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE REQUEST-----\n"
    )

    decided = judged(request(pem), Members((OPEN,)))

    assert (der == GOOD_DER) == bool(decided.answer.certificate)
    assert bool(decided.answer.reason) != bool(decided.answer.certificate)


def test_every_refusal_is_authentic_to_who_asked() -> None:
    refused = judged(request(csr("aggregator")), Members((OPEN,))).answer

    assert is_authentic(msgspec.json.decode(seal(refused, SECRET), type=type(refused)), SECRET)


def test_another_key_is_not_signed_a_second_time() -> None:
    first = judged(request(csr()), Members((OPEN,)))
    assert first.members is not None

    second = judged(request(csr()), first.members, first.answer.certificate)

    assert "used already" in second.answer.reason
    assert not second.answer.certificate


def test_after_its_time_an_invitation_signs_nothing() -> None:
    assert "expired" in judged(request(csr()), Members((OPEN,)), later=timedelta(hours=1)).answer.reason


def test_guessing_the_secret_makes_the_invitation_void() -> None:
    members = Members((OPEN,))
    for _ in range(MAX_FAILURES):
        decided = judged(request(csr(), secret=bytes(32)), members)
        assert "does not come from who holds" in decided.answer.reason
        assert decided.members is not None
        members = decided.members

    decided = judged(request(csr()), members)

    assert "void" in decided.answer.reason
    assert decided.members is None


def test_an_invitation_that_nobody_gave_is_not_answered() -> None:
    assert decide(request(csr()), Members(), None, AUTHORITY, NOW) is None
