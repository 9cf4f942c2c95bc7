"""A reader of the binary messages, written from docs/WIRE_FORMAT.md alone: it shares nothing with fieldfold."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

NUMBERS = {0xCA + i: struct.Struct(">" + letter) for i, letter in enumerate("fdBHIQbhiq")}
HEADS = {0x90 + i: ("array", i, 0) for i in range(16)} | {0xDC: ("array", 0, 2), 0xDD: ("array", 0, 4)}
HEADS |= {0xA0 + i: ("str", i, 0) for i in range(32)} | {0xD9 + i: ("str", 0, 1 << i) for i in range(3)}
HEADS |= {0xC4 + i: ("bin", 0, 1 << i) for i in range(3)}
FIELDS = {
    "Chunk": "format digest total_bytes chunk_bytes index data seal",
    "ClientUpdate": "format node sequence run base_version num_examples num_steps train_loss trained_norm base_score"
    " base_loss class_scores payload",
    "ModelDelta": "format run version parameters payload",
    "ModelSnapshot": "format run version parameters payload",
    "Credential": "format public_key issued certificates signature",
}
TYPES: dict[str, type] = dict.fromkeys(("train_loss", "trained_norm", "base_loss"), float)  # the others are int
TYPES |= {"node": str, "base_score": list, "class_scores": list, "certificates": list}
TYPES |= dict.fromkeys(("digest", "run", "parameters", "data", "payload", "seal", "public_key", "signature"), bytes)
DIGESTS, FROM_0 = {"digest", "run", "parameters"}, {"index", "base_version", "version"}  # other integers begin at 1


def demand(holds: object) -> None:
    if not holds:
        raise ValueError("this departs from docs/WIRE_FORMAT.md")


def f32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def level(code: int) -> int:
    return -(code // 2 + 1) if code % 2 else code // 2 + 1


class Reader(io.BytesIO):
    def take(self, size: int) -> bytes:
        part = self.read(size)
        demand(len(part) == size)
        return part

    def unpack(self, known: int = 0, *below: int) -> Any:
        head = self.take(1)[0]
        if head < 0x80 or head >= 0xE0:
            return head if head < 0x80 else head - 256
        if head in NUMBERS:
            return NUMBERS[head].unpack(self.take(NUMBERS[head].size))[0]
        demand(head in HEADS)
        kind, size, width = HEADS[head]
        size += int.from_bytes(self.take(width), "big")
        if kind == "array":  # what follows the elements that the document knows is ignored
            return [self.unpack(*below) for _ in range(min(size, known))]
        return self.take(size).decode() if kind == "str" else self.take(size)

    def message(self, kind: str) -> dict[str, Any]:
        values = self.unpack(len(names := FIELDS[kind].split()), 257, 4)
        demand(type(values) is list and values[:1] == [1])
        for name, x in zip(names, values, strict=True):
            demand(type(x) is TYPES.get(name, int))
            demand(name not in DIGESTS or len(x) == 8)
            demand(name in TYPES or (name not in FROM_0) <= x < 1 << 53)
            demand(name not in {"train_loss", "base_loss"} or math.isfinite(x))
            demand(name != "public_key" or len(x) == 32)
            demand(name != "seal" or len(x) in {0, 72})
            demand(name != "trained_norm" or 0 <= x < math.inf)
            for score in {"base_score": [x], "class_scores": x}.get(name, []):
                demand(type(score) is list and [type(y) for y in score] == [float, int] and 0 <= score[1] < 1 << 53)
            demand(name != "class_scores" or len(x) <= 256)
        return dict(zip(names, values, strict=True))

    def varint(self, most_bytes: int = 5) -> int:
        group = bytearray(self.take(1))
        while group[-1] > 127:
            group += self.take(1)
        demand(len(group) <= most_bytes)
        return sum((byte & 127) << 7 * i for i, byte in enumerate(group))

    def stream(self, most: int, least: int = 0) -> bytes:
        raw = self.varint()
        part = self.take(stored := self.varint() if raw else 0)
        demand(least <= raw <= most and stored <= raw)
        if stored == raw:
            return part
        try:
            says = zstandard.get_frame_parameters(frame := b"\x28\xb5\x2f\xfd" + part)
            demand(says.content_size in {raw, zstandard.CONTENTSIZE_UNKNOWN} and not says.dict_id)
            part = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompress(frame, raw, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError("not one whole zstd frame") from error
        demand(len(part) == raw)
        return part

    def escaped(self, symbols: Sequence[int], escape: int, n: int) -> list[int]:
        overflow = Reader(self.stream(n // 8))
        codes = [x + overflow.varint(4) if x == escape else x for x in symbols]
        demand(not overflow.read())
        return codes

    def bits(self, count: int) -> list[int]:
        return [byte >> i & 1 for byte in self.take((count + 7) // 8) for i in range(8)][:count]

    def positions(self, size: int) -> list[int]:
        if (count := self.varint()) == 0:
            return []
        demand(count <= size)
        nibbles = [half for byte in self.take((count + 127) // 128) for half in (byte & 15, byte >> 4)]
        widths = [nibbles[i // 64] for i in range(count)]
        demand(sum(widths) <= size)
        low = iter(self.bits(sum(widths)))
        gaps = [0] * count
        for bit in range(max(widths)):
            gaps = [gap + (next(low) << bit if width > bit else 0) for gap, width in zip(gaps, widths, strict=True)]
        quotients = self.take(self.varint())
        unary = "".join(f"{byte:08b}"[::-1] for byte in quotients).split("1")
        demand(len(unary) == count + 1 and quotients[-1])
        gaps = [gap + (len(zeros) << width) for gap, zeros, width in zip(gaps, unary, widths, strict=False)]
        found = [after - 1 for after in itertools.accumulate(gap + 1 for gap in gaps)]
        demand(found[-1] < size)
        return found

    def levels(self, layout: int, n: int) -> list[int]:
        levels, places = [0] * n, list(range(n))
        if layout == 8:
            places = self.positions(n)
            signs = self.bits(len(places))
            for place, sign in zip(places, signs, strict=True):
                levels[place] = 1 - 2 * sign
            large = [places[i] for i in self.positions(len(places))]
            for place, code in zip(large, self.escaped(self.stream(len(large), len(large)), 255, n), strict=True):
                levels[place] *= code + 2
            return levels
        if layout == 4:
            packed = self.stream((n + 1) // 2, (n + 1) // 2)
            symbols = [half for byte in packed for half in (byte & 15, byte >> 4)][:n]
            return [level(x - 1) if x else 0 for x in self.escaped(symbols, 15, n)]
        if layout == 5:
            digits = self.stream((n + 4) // 5, (n + 4) // 5)
            demand(max(digits, default=0) <= 242)
            levels = [(0, 1, -1)[byte // 3**k % 3] for byte in digits for k in range(5)][:n]
            places = [i for i in range(n) if levels[i]]
        gaps = self.stream(len(places))
        after = list(itertools.accumulate(gap + (gap < 255) for gap in gaps))
        demand(not after or after[-1] <= len(places))
        found = [places[p - 1] for p, gap in zip(after, gaps, strict=True) if gap < 255]
        for place, code in zip(found, self.escaped(self.stream(len(found), len(found)), 255, n), strict=True):
            levels[place] = levels[place] * (code + 2) if layout == 5 else level(code)
        return levels

    def payload(self, n: int, *, inner: bool = False) -> list[float]:
        layout = self.take(1)[0] - 16
        demand(0 <= layout <= 8 and not (inner and layout == 7) and self.varint() == n)
        if layout == 7:
            t, length = self.varint(), self.varint()
            demand(0 < t < n)
            first = Reader(self.take(length)).payload(t, inner=True)
            return first + Reader(self.read()).payload(n - t, inner=True)
        step = struct.unpack("<f", self.take(4))[0] if layout > 1 else 1.0
        demand(2.0**-100 <= step <= 2.0**100)
        if layout < 4:
            width = (0, 4, 2, 1)[layout]
            planes = self.stream(width * n, width * n) if layout else bytes(n)
            elements = struct.unpack(f"<{n}{'bfeb'[layout]}", b"".join(planes[i::n] for i in range(n)))
            values = [f32(x * step) for x in elements]
        else:
            offsets, levels = struct.unpack("3b", self.take(3)), self.levels(layout, n)
            demand(min(offsets) > -128 and all(abs(m) <= 1 << 24 for m in levels))
            sizes = {m: f32(f32(m + offsets[min(m, 3) - 1] / 128) * step) for m in {abs(m) for m in levels if m}}
            values = [math.copysign(sizes[abs(m)], m) if m else 0.0 for m in levels]
        demand(not self.read() and all(map(math.isfinite, values)))
        return values


def unsealed(message: bytes) -> tuple[bytes, bytes]:
    tail = message[-107:]
    demand(tail[:9] == b',"seal":"' and tail[-2:] == b'"}')
    return message[:-107] + b"}", base64.b64decode(tail[9:-2], validate=True)


def check_seal(public_key: bytes, topic: str, digest: bytes, seal: bytes) -> None:
    demand(len(seal) == 72 and seal[:8] == hashlib.sha256(public_key).digest()[:8])
    said = b"fieldfold message 1\0" + topic.encode() + b"\0" + digest
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(seal[8:], said)
    except InvalidSignature as error:
        raise ValueError("this departs from what was signed") from error


def key_of(credential: bytes, topic: str, name: str, authority: x509.Certificate, pins: set[str]) -> bytes:
    """The Ed25519 key of a party, whose certificate the authority itself has signed with ECDSA."""
    says = Reader(credential).message("Credential")
    (certificate,) = map(x509.load_der_x509_certificate, says["certificates"])
    certificate.verify_directly_issued_by(authority)
    demand([each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [name])
    key = certificate.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    demand(not pins or hashlib.sha256(spki).hexdigest() in pins)
    demand(isinstance(key, ec.EllipticCurvePublicKey))
    said = b"fieldfold key 1\0" + topic.encode() + b"\0" + says["public_key"] + struct.pack(">Q", says["issued"])
    key.verify(says["signature"], said, ec.ECDSA(hashes.SHA256()))  # type: ignore[union-attr, call-arg, arg-type]
    return bytes(says["public_key"])


def join_chunks(messages: Iterable[bytes]) -> bytes:
    chunks = [Reader(message).message("Chunk") for message in messages]
    heads = {(chunk["digest"], chunk["total_bytes"], chunk["chunk_bytes"]) for chunk in chunks}
    ((digest, total, size),) = heads  # ValueError unless they are all of one object
    demand(total <= 1 << 30 and all(len(x["data"]) == min(size, total - x["index"] * size) for x in chunks))
    parts = {chunk["index"]: chunk["data"] for chunk in chunks}
    whole = b"".join(parts[i] for i in sorted(parts))
    demand(len(parts) == -(-total // size) and hashlib.sha256(whole).digest()[:8] == digest)
    return whole
