"""Keys that sign, whose they are, and the files they lie in."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import BasicConstraints, CertificateBuilder, Name, NameAttribute, random_serial_number
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.errors import ConfigError, FieldfoldError, SignatureError, WireError
from fieldfold.trust.credentials import PINS_FILE, credential_of, endorse, examine, pin_of, read_pins
from fieldfold.trust.party import KEY_FILE, Party
from fieldfold.trust.signing import Signer, Verifier, load_signer
from fieldfold.wire.sealed import with_seal, without_seal
from tests.identities import identity, parties, signer

TOPIC = "fieldfold/plant/node/press-07/key"
NOW = dt.datetime.now(dt.UTC)


def made() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


def verifier_of(key: Signer) -> Verifier:
    return Verifier(key.public_key, "press-07")


# -- messages --


@settings(deadline=None)
@given(st.text(max_size=50), st.binary(max_size=200))
def test_what_was_signed_is_opened_and_stays_a_json_object(topic: str, inside: bytes) -> None:
    key, content = signer("press-07"), b'{"format":1,"x":' + inside.hex().encode() + b"}"
    message = key.message(topic, content)
    assert verifier_of(key).open(topic, message) == content
    assert message.startswith(content[:-1])
    assert message.endswith(b'"}')


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_not_signed(payload: bytes) -> None:
    with pytest.raises(SignatureError):
        verifier_of(signer("press-07")).open("topic", payload)


@settings(deadline=None)
@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    key = signer("press-07")
    message = bytearray(key.message("topic", b'{"format":1}'))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureError):
        verifier_of(key).open("topic", bytes(message))


@settings(deadline=None)
@given(st.binary(min_size=72, max_size=72))
def test_a_seal_goes_in_and_comes_out(seal: bytes) -> None:
    assert without_seal(with_seal(b'{"a":1}', seal)) == (b'{"a":1}', seal)


def test_a_message_without_a_seal_says_so() -> None:
    with pytest.raises(WireError, match="no seal"):
        without_seal(b'{"format":1}')


# -- the key's file --


def test_a_key_is_made_once_and_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / KEY_FILE
    first = load_signer(path)
    assert load_signer(path).public_key == first.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    assert load_signer(path).public_key != first.public_key


def test_a_signing_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    load_signer(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others") as caught:
        load_signer(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_file_that_is_no_such_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    other = ec.generate_private_key(ec.SECP256R1())
    for content in (b"", b"no key", other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())):
        path.touch(mode=0o600)
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not an Ed25519 key"):
            load_signer(path)


def test_a_party_bears_the_name_in_its_certificate(tmp_path: Path) -> None:
    files = identity("press-07")
    with pytest.raises(ConfigError, match=r"name is press-08, but .* was issued to press-07"):
        Party("press-08", TOPIC, files.certificate, files.key, tmp_path)
    party = Party("press-07", TOPIC, files.certificate, files.key, tmp_path)
    shown = examine(party.credential(), TOPIC, "press-07", [parties().authority.certificate], NOW)
    assert shown.public_key == party.signer.public_key


# -- whose key it is --


def issued(name: str, key: object, issuer: object, issuer_name: str, *, is_ca: bool = False) -> object:
    builder = (
        CertificateBuilder()
        .subject_name(Name([NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(Name([NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
        .public_key(key.public_key())  # type: ignore[attr-defined]
        .serial_number(random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=30))
        .add_extension(BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    return builder.sign(issuer, hashes.SHA256())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
@pytest.mark.parametrize("is_ca", [True, False])
def test_a_plants_own_authority_with_one_between(kind: str, *, is_ca: bool) -> None:
    root, between = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    own: object = {
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": Ed25519PrivateKey.generate,
    }[kind]()
    top = issued("root", root, root, "root", is_ca=True)
    middle = issued("between", between, root, "root", is_ca=is_ca)
    leaf = issued("press-07", own, between, "between")
    key = made()
    shown = credential_of([leaf, middle], own, TOPIC, key.public_key)  # type: ignore[list-item]
    if is_ca:
        assert examine(shown, TOPIC, "press-07", [top], NOW).public_key == key.public_key  # type: ignore[list-item]
    else:
        with pytest.raises(SignatureError, match="not certified"):
            examine(shown, TOPIC, "press-07", [top], NOW)  # type: ignore[list-item]
    with pytest.raises(SignatureError, match="not certified"):
        examine(credential_of([leaf], own, TOPIC, key.public_key), TOPIC, "press-07", [top], NOW)  # type: ignore[list-item]


def test_a_certificate_out_of_its_time_where_somebody_has_a_clock() -> None:
    files = identity("press-07")
    shown, authority = endorse(files.certificate, files.key, TOPIC, bytes(32)), [parties().authority.certificate]
    assert examine(shown, TOPIC, "press-07", authority).public_key == bytes(32)
    for years in (-3, 3):
        with pytest.raises(SignatureError, match="the certificate is good from"):
            examine(shown, TOPIC, "press-07", authority, NOW + dt.timedelta(days=365 * years))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_no_credential(payload: bytes) -> None:
    with pytest.raises(SignatureError):
        examine(payload, TOPIC, "press-07", [parties().authority.certificate])


def test_pins_are_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    ca, pins = tmp_path / "ca.crt", tmp_path / PINS_FILE
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_pins(ca)
    assert "which aggregator is believed" in caught.value.hint
    for text in ("", "\n", "ab" * 31, "xy" * 32, "\u00e4"):
        pins.write_text(text, encoding="utf-8")
        with pytest.raises(FieldfoldError, match="64 hex digits"):
            read_pins(ca)
    pin = pin_of(parties().authority.certificate)
    pins.write_text(f"{pin}\n{'ab' * 32}\n")
    assert read_pins(ca) == {pin, "ab" * 32}
