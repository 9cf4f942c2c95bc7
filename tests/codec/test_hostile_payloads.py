from __future__ import annotations

import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
import zstandard

from benchmarks.codec_fuzz import campaign, honest_payloads
from fieldfold.codec import decode
from fieldfold.codec.payload import FLOAT16, FLOAT32, INT8, NIBBLES, SPARSE, SPLIT, TRITS
from fieldfold.codec.streams import stream as stream_parts
from fieldfold.codec.streams import varint
from fieldfold.errors import CodecError

SIZE = 700
SCALE = struct.pack("<f3b", 0.5, 0, 0, 0)
STEP = struct.pack("<f", 0.5)
EXTREMES = [0, 0x7F, 0x80, 0xFF, 0xFFFF, 0xFFFF_FFFF, 0x7_FFFF_FFFF]


def head(layout: int, num_params: int) -> bytes:
    return bytes([0x10 | layout]) + varint(num_params)


def stream(raw: bytes) -> bytes:
    return b"".join(stream_parts(raw))


def test_every_mutation_decodes_to_a_finite_vector_or_is_refused() -> None:
    """The short version of `python -m benchmarks.codec_fuzz`."""
    outcome = campaign(mutations=6000, seed=20)
    assert outcome.broken == []
    assert 300 < outcome.decoded < 5700


@pytest.mark.parametrize("length", range(40))
def test_noise_is_refused(length: int) -> None:
    rng = random.Random(length)
    for _ in range(20):
        with pytest.raises(CodecError):
            decode(rng.randbytes(length), SIZE)


def test_every_truncation_and_every_suffix_is_refused() -> None:
    for payload in honest_payloads():
        for end in range(0, len(payload), max(len(payload) // 50, 1)):
            with pytest.raises(CodecError):
                decode(payload[:end], SIZE)
        with pytest.raises(CodecError):
            decode(payload + b"\0", SIZE)


REFUSED = {
    "a NaN among float32": head(FLOAT32, 2) + stream(bytes([0] * 4 + [0, 0xC0, 0, 0x7F])),
    "an infinite float16": head(FLOAT16, 2) + STEP + stream(bytes([0, 0, 0, 0x7C])),
    "a NaN step": head(INT8, 2) + struct.pack("<f", np.nan) + stream(bytes(2)),
    "an infinite step": head(INT8, 2) + struct.pack("<f", np.inf) + stream(bytes(2)),
    "a negative step": head(INT8, 2) + struct.pack("<f", -1) + stream(bytes(2)),
    "a subnormal step": head(INT8, 2) + struct.pack("<f", 1e-40) + stream(bytes(2)),
    "an offset of -128": head(NIBBLES, 2) + struct.pack("<f3b", 1, -128, 0, 0) + stream(b"\0") + stream(b""),
    "too few bytes": head(INT8, 2) + STEP + stream(bytes(1)),
    "too many bytes": head(INT8, 2) + STEP + stream(bytes(3)),
    "a position past the end": head(SPARSE, 9) + SCALE + stream(b"\x09") + stream(b"\0") + stream(b""),
    "gaps past the end": head(SPARSE, 300) + SCALE + stream(b"\xff\xff") + stream(b"") + stream(b""),
    "fewer codes than positions": head(SPARSE, 9) + SCALE + stream(b"\0\0") + stream(b"\0") + stream(b""),
    "an escape without overflow": head(SPARSE, 9) + SCALE + stream(b"\0") + stream(b"\xff") + stream(b""),
    "overflow without an escape": head(SPARSE, 9) + SCALE + stream(b"\0") + stream(b"\0") + stream(b"\0"),
    "an unfinished overflow": head(SPARSE, 9) + SCALE + stream(b"\0") + stream(b"\xff") + stream(b"\x80"),
    "an overflow of five bytes": (
        head(SPARSE, 90) + SCALE + stream(b"\0") + stream(b"\xff") + stream(b"\x80" * 4 + b"\1")
    ),
    "a level above 2^24": (head(SPARSE, 90) + SCALE + stream(b"\0") + stream(b"\xff") + stream(b"\xff\xff\xff\x7f")),
    "a byte that is not five digits": head(TRITS, 5) + SCALE + stream(b"\xf3") + stream(b"") * 3,
    "a gap past the non-zero": head(TRITS, 5) + SCALE + stream(b"\1") + stream(b"\1") + stream(b"\0") + stream(b""),
    "an unknown layout": head(15, 2),
    "a split within a split": head(SPLIT, 3) + varint(2) + varint(4) + head(SPLIT, 2) * 2 + head(0, 1),
    "a split of nothing": head(SPLIT, 2) + varint(0) + varint(2) + head(0, 0) + head(0, 2),
    "parts that do not add up": head(SPLIT, 3) + varint(2) + varint(2) + head(0, 2) + head(0, 2),
    "a varint without end": b"\x10" + b"\x80" * 9,
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name: str) -> None:
    payload = REFUSED[name]
    with pytest.raises(CodecError) as refused:
        decode(payload, payload[1])
    assert refused.value.hint


def bare_frame(raw: bytes, *, content_size: bool) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=content_size).compress(raw)[4:]


def test_a_frame_with_its_content_size_is_taken() -> None:
    frame = bare_frame(bytes(200), content_size=True)
    payload = head(INT8, 200) + STEP + varint(200) + varint(len(frame)) + frame
    assert not decode(payload, 200).any()


def bombs() -> dict[str, bytes]:
    full = bare_frame(bytes(100_000_000), content_size=True)
    bare = bare_frame(bytes(100_000_000), content_size=False)
    short = bare_frame(bytes(50), content_size=False)
    start = head(INT8, SIZE) + STEP
    claims_exabytes = b"\xe0" + b"\xff" * 7 + b"\x0f"
    wide_window = b"\x00" + b"\xf8" + bare[2:]
    return {
        "100 MB behind an honest content size": start + varint(SIZE) + varint(len(full[:600])) + full[:600],
        "100 MB without one": start + varint(SIZE) + varint(600) + bare[:600],
        "a content size of exabytes": start + varint(SIZE) + varint(9) + claims_exabytes,
        "a window of terabytes": start + varint(SIZE) + varint(600) + wide_window[:600],
        "a stream that claims 32 GB": start + varint(0x7_FFFF_FFFF) + varint(600) + bare[:600],
        "a stored length of 32 GB": start + varint(SIZE) + varint(0x7_FFFF_FFFF) + bare[:600],
        "a frame shorter than its stream": start + varint(SIZE) + varint(len(short)) + short,
        "overflow of 32 GB": head(SPARSE, SIZE) + SCALE + stream(b"\0") + stream(b"\xff") + varint(1 << 34),
        "a vector of 32 GB": head(0, 1 << 33),
    }


def test_bombs_are_refused_within_64_mib_of_address_space() -> None:
    """In a process of its own, whose limit is set after the imports."""
    script = textwrap.dedent("""
        import resource, sys
        from fieldfold.codec import decode, encode
        from fieldfold.errors import CodecError
        import numpy as np
        decode(encode(np.ones(700, np.float32)), 700)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        for line in sys.stdin:
            try:
                decode(bytes.fromhex(line), 700)
            except CodecError as error:
                print(error.reason)
    """)
    lines = "\n".join(bomb.hex() for bomb in bombs().values())
    done = subprocess.run([sys.executable, "-c", script], input=lines, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(bombs())


@pytest.mark.parametrize("layout", ["sparse", "trits", "nibbles"])
def test_the_worst_payload_of_a_layout_stays_within_the_stated_memory(layout: str) -> None:
    size = 400_000
    escapes = (b"\xff" + bytes(7)) * (size // 8)
    overflow = b"\x07" * (size // 8)
    payload = {
        "sparse": head(SPARSE, size) + SCALE + stream(bytes(size)) + stream(escapes) + stream(overflow),
        "trits": (
            head(TRITS, size)
            + SCALE
            + stream(bytes([121]) * (size // 5))
            + stream(bytes(size))
            + stream(escapes)
            + stream(overflow)
        ),
        "nibbles": head(NIBBLES, size) + SCALE + stream((b"\x0f" + bytes(3)) * (size // 8)) + stream(overflow),
    }[layout]
    tracemalloc.start()
    try:
        decoded = decode(payload, size)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded.any()
    assert peak_bytes < 64 * size
