"""What docs/WIRE_FORMAT.md says of signatures: by its vectors, and by a reader written from it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fieldfold.errors import SignatureError
from fieldfold.trust.credentials import examine, read_authorities, read_pins
from fieldfold.trust.signing import Signer, Verifier
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import pack, unpack
from fieldfold.wire.sealed import Credential
from fieldfold.wire.topics import AGGREGATOR, Topics
from tests.identities import credential, identity, signer
from tests.wire.independent_reader import check_seal, key_of, unsealed
from tests.wire.seal_vectors import COMMAND, CONTENT, FILE, KEY, document

VECTORS = json.loads(FILE.read_text())
DOCUMENT = (Path(__file__).parents[2] / "docs/WIRE_FORMAT.md").read_text()
TOPICS = Topics("plant")


def test_the_file_is_what_the_script_writes() -> None:
    assert FILE.read_text() == document()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_both_say_the_same_of_a_seal(vector: dict[str, Any]) -> None:
    public_key, seal = bytes.fromhex(vector["public_key"]), bytes.fromhex(vector["seal"])
    verifier = Verifier(public_key, "who signs")
    if vector["good"]:
        verifier.check(vector["topic"], vector["digest"], seal)
        check_seal(public_key, vector["topic"], bytes.fromhex(vector["digest"]), seal)
        return
    with pytest.raises(SignatureError):
        verifier.check(vector["topic"], vector["digest"], seal)
    with pytest.raises(ValueError, match="departs"):
        check_seal(public_key, vector["topic"], bytes.fromhex(vector["digest"]), seal)


def test_the_worked_example() -> None:
    text = DOCUMENT.split("With the private key 00 01 02 ... 1F")[1].split("More are in")[0]
    public_key, digest, *seal = re.findall(r"^ {4}([0-9A-F]+)$", text, re.MULTILINE)
    ours = Signer(KEY)
    assert ours.public_key.hex().upper() == public_key
    assert object_digest(CONTENT).upper() == digest
    assert ours.seal(COMMAND, digest).hex().upper() == "".join(seal)
    assert CONTENT.decode() in text


def test_a_sealed_message_reads_the_same() -> None:
    message = Signer(KEY).message(COMMAND, CONTENT)
    said, seal = unsealed(message)
    assert said == CONTENT == Verifier(Signer(KEY).public_key, "").open(COMMAND, message)
    check_seal(Signer(KEY).public_key, COMMAND, bytes.fromhex(object_digest(CONTENT)), seal)
    assert json.loads(message) == {**json.loads(CONTENT), "seal": base64.b64encode(seal).decode()}
    assert message.decode() in DOCUMENT.replace("\n    ", "")


@pytest.mark.parametrize("name", [AGGREGATOR, "press-07"])
def test_a_credential_reads_the_same(name: str) -> None:
    topic = TOPICS.aggregator_key if name == AGGREGATOR else TOPICS.key(name)
    shown, files = credential(name, topic), identity("press-07")
    [authority] = read_authorities(files.ca)
    pins = set(read_pins(files.ca)) if name == AGGREGATOR else set()
    standing = examine(shown, topic, name, [authority])
    assert standing.public_key == signer(name).public_key == key_of(shown, topic, name, authority, pins)
    assert not pins or standing.pin in pins
    moved = pack(unpack(Credential, shown))
    with pytest.raises(SignatureError):
        examine(moved, TOPICS.key("press-08"), name, [authority])
