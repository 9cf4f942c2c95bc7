"""Makes tests/wire/vectors/seals.json from docs/WIRE_FORMAT.md alone: `python -m tests.wire.seal_vectors`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = Path(__file__).with_name("vectors") / "seals.json"
KEY, OTHER_KEY = (Ed25519PrivateKey.from_private_bytes(bytes(range(first, first + 32))) for first in (0, 100))
UPDATE = "fieldfold/plant/node/press-07/update"
COMMAND = "fieldfold/plant/node/press-07/command"
CONTENT = b'{"format":1,"issued":7,"command":"pause"}'


def seal(key: Ed25519PrivateKey, topic: str, digest: bytes) -> bytes:
    name = hashlib.sha256(key.public_key().public_bytes_raw()).digest()[:8]
    return name + key.sign(b"fieldfold message 1\0" + topic.encode() + b"\0" + digest)


def vectors() -> Iterator[dict[str, Any]]:
    digest, other = hashlib.sha256(CONTENT).digest(), hashlib.sha256(b"").digest()
    good = seal(KEY, COMMAND, digest)
    for name, topic, said, sealed, is_good in (
        ("a command", COMMAND, digest, good, True),
        ("an update", UPDATE, other, seal(KEY, UPDATE, other), True),
        ("a delta", "fieldfold/plant/model/delta", digest, seal(KEY, "fieldfold/plant/model/delta", digest), True),
        ("said to another node", COMMAND.replace("07", "08"), digest, good, False),
        ("said of another kind", UPDATE, digest, good, False),
        ("said in another federation", COMMAND.replace("plant", "plan"), digest, good, False),
        ("another content", COMMAND, other, good, False),
        ("another key", COMMAND, digest, seal(OTHER_KEY, COMMAND, digest), False),
        (
            "another key under this one's name",
            COMMAND,
            digest,
            good[:8] + seal(OTHER_KEY, COMMAND, digest)[8:],
            False,
        ),
        ("one bit", COMMAND, digest, good[:-1] + bytes([good[-1] ^ 1]), False),
        ("cut off", COMMAND, digest, good[:-1], False),
        ("longer", COMMAND, digest, good + b"\0", False),
        ("none", COMMAND, digest, b"", False),
    ):
        yield {
            "name": name,
            "topic": topic,
            "public_key": KEY.public_key().public_bytes_raw().hex(),
            "digest": said.hex(),
            "seal": sealed.hex(),
            "good": is_good,
        }


def document() -> str:
    return json.dumps(list(vectors()), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
