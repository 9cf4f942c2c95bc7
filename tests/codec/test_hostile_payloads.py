from __future__ import annotations

import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc

import pytest
import zstandard

from benchmarks.codec_fuzz import campaign, honest_payloads
from fieldfold.codec import decode
from fieldfold.codec.payload import INT8, NIBBLES, RICE, SPARSE, TRITS
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


@pytest.mark.parametrize("layout", ["sparse", "trits", "nibbles", "rice"])
def test_the_worst_payload_of_a_layout_stays_within_the_stated_memory(layout: str) -> None:
    size = 400_000
    escapes = (b"\xff" + bytes(7)) * (size // 8)
    overflow = b"\x07" * (size // 8)
    everything = varint(size) + bytes(-(-size // 128)) + varint(size // 8) + b"\xff" * (size // 8)
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
        "rice": head(RICE, size)
        + SCALE
        + everything
        + bytes(size // 8)
        + everything
        + stream(escapes)
        + stream(overflow),
    }[layout]
    tracemalloc.start()
    try:
        decoded = decode(payload, size)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded.any()
    assert peak_bytes < 64 * size
