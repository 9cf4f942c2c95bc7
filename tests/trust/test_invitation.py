"""The code of an invitation, and how the two ends of an enrolment know each other."""

from __future__ import annotations

import base64
import hashlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldfold.errors import ConfigError, WireError
from fieldfold.trust.invitation import (
    CODE_PREFIX,
    EnrolmentAnswer,
    EnrolmentRequest,
    Invitation,
    digest_of,
    is_authentic,
    parse,
    read_code,
    seal,
    shared_secret,
    write_code,
)

SECRET = shared_secret(bytes(range(32)))
REQUEST = EnrolmentRequest(id="a" * 16, csr="a request")
ANSWER = EnrolmentAnswer(id="a" * 16, request=digest_of("a request"), certificate="a certificate")
INVITATION = Invitation(
    id="abcdefghij234567",
    node="press-07",
    federation="plant",
    url="mqtts://broker.plant:8883",
    aggregator=bytes(range(32)),
    expires_s=1_700_000_000,
    ca=b"authority" * 40,
    certificate=b"certificate" * 40,
    key=bytes(range(32)),
)


def test_a_code_says_all_of_the_invitation() -> None:
    assert read_code(write_code(INVITATION)) == INVITATION


def test_blanks_and_line_breaks_in_a_code_do_not_matter() -> None:
    code = write_code(INVITATION)

    assert read_code(f" {code[:50]}\r\n{code[50:90]} {code[90:]}\n") == INVITATION


@given(st.data())
def test_a_code_with_one_wrong_character_or_its_end_missing_is_refused(data: st.DataObject) -> None:
    code = write_code(INVITATION)
    at = data.draw(st.integers(len(CODE_PREFIX), len(code) - 2))
    other = data.draw(st.sampled_from([character for character in "Aa0_-" if character != code[at]]))

    for broken in (code[:at], code[:at] + other + code[at + 1 :]):
        with pytest.raises(ConfigError, match="damaged or not whole"):
            read_code(broken)


@pytest.mark.parametrize("code", ["", "hello", "fieldfold2-AAAA", CODE_PREFIX + "A" * 9000])
def test_what_is_no_code_is_refused_with_what_one_looks_like(code: str) -> None:
    with pytest.raises(ConfigError, match=r"begins with fieldfold1-|damaged"):
        read_code(code)


def test_a_code_that_would_inflate_without_end_is_refused() -> None:
    packed = zlib.compress(bytes(1 << 22), 9)
    code = CODE_PREFIX + base64.urlsafe_b64encode(hashlib.sha256(packed).digest()[:4] + packed).decode().rstrip("=")

    with pytest.raises(ConfigError):
        read_code(code)


@pytest.mark.parametrize(
    "change",
    [
        {"node": "../press"},
        {"node": "press/07"},
        {"node": "press+"},
        {"node": "#"},
        {"node": "press\x00"},
        {"node": "pres\u0455-07"},
        {"federation": "plant/node/press-08"},
        {"id": "../../etc/passwd"},
        {"url": "mqtt://broker.plant:1883"},
        {"url": "mqtts://broker.plant:8883/\n[data]"},
        {"key": b"short"},
    ],
)
def test_a_code_with_names_that_are_not_allowed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        read_code(write_code(msgspec.structs.replace(INVITATION, **change)))


def test_what_was_sealed_is_authentic_to_who_has_the_secret_alone() -> None:
    request, answer = parse(seal(REQUEST, SECRET), EnrolmentRequest), parse(seal(ANSWER, SECRET), EnrolmentAnswer)

    assert is_authentic(request, SECRET)
    assert is_authentic(answer, SECRET)
    assert not is_authentic(request, shared_secret(bytes(32)))
    assert not is_authentic(REQUEST, SECRET)


@pytest.mark.parametrize("change", [{"csr": "another"}, {"id": "b" * 16}, {"mac": "0" * 64}, {"mac": "\u20ac"}])
def test_a_changed_request_is_not_authentic(change: dict[str, str]) -> None:
    sealed = parse(seal(REQUEST, SECRET), EnrolmentRequest)

    assert not is_authentic(msgspec.structs.replace(sealed, **change), SECRET)


@pytest.mark.parametrize("change", [{"certificate": "another"}, {"request": "0" * 64}, {"reason": "no"}])
def test_a_changed_answer_is_not_authentic(change: dict[str, str]) -> None:
    sealed = parse(seal(ANSWER, SECRET), EnrolmentAnswer)

    assert not is_authentic(msgspec.structs.replace(sealed, **change), SECRET)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_message_are_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        parse(payload, EnrolmentAnswer)


def test_a_message_that_is_too_long_is_not_even_decoded() -> None:
    with pytest.raises(WireError, match="too many"):
        parse(seal(REQUEST, SECRET) + b" " * 20_000, EnrolmentRequest)
