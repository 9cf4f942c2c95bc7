"""Mutated payloads: each decodes to a finite vector of the declared size or is refused with the codec's own error.

Bit flips, truncations, splices, lengths set to extremes, insertions, and valid zstd frames around mutated
content: what repairing a checksum is to formats that have one. All in a process whose address space is bounded
once everything is imported; the time of every decoding is watched.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from fieldfold.codec import PROFILES, Profile, decode, encode
from fieldfold.codec.streams import PayloadReader, stream, varint
from fieldfold.errors import CodecError

NUM_PARAMS = 700
BOUND_BYTES = 16 << 20
BOUND_BYTES_A_PARAM = 64
"""What decode() promises to stay within; the process may allocate that and no more beside what it holds before."""
LONGEST_S = 0.1

_EXTREMES = (0, 0x7F, 0x80, 0xFF, 0xFFFF, 0xFFFF_FFFF, 0x7_FFFF_FFFF)
_HEADER_BYTES = 24
_FIXED_BYTES = {1: 0, 2: 4, 3: 4, 4: 7, 5: 7, 6: 7}
"""What stands between the head and the first stream, by layout."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a campaign.

    Attributes:
        broken: what was neither decoded nor refused, or took too long, and why.
    """

    mutations: int
    decoded: int
    refused: int
    slowest_ms: float
    broken: list[str]


def honest_payloads(num_params: int = NUM_PARAMS) -> list[bytes]:
    """Every profile and several error targets on unlike deltas."""
    rng = np.random.default_rng(0)
    heavy = (rng.standard_t(2, num_params) * 1e-3).astype(np.float32)
    even = rng.normal(size=num_params).astype(np.float32)
    targets = [Profile(f"{target}", "dead_zone", error_target=target) for target in (0.003, 0.03, 0.2)]
    payloads = [
        encode(delta, profile, seed=0) for delta in (heavy, even) for profile in [*PROFILES.values(), *targets]
    ]
    return [*payloads, encode(heavy, num_trained=num_params * 6 // 7), encode(np.zeros(num_params, np.float32))]


def _mutate_content(payload: bytes, rng: random.Random) -> bytes:
    """Changes what is inside the streams and compresses them again, so that the frames are valid."""
    reader = PayloadReader(payload)
    layout = reader.take(1)[0] & 0x0F
    if layout not in _FIXED_BYTES:
        return payload[: rng.randrange(len(payload))]
    num_params = reader.varint()
    fixed = bytes(reader.take(_FIXED_BYTES[layout]))
    parts = [payload[:1], varint(num_params), fixed]
    for _ in range({4: 2, 5: 4, 6: 3}.get(layout, 1)):
        raw = bytearray(reader.stream(4 * num_params))
        for _ in range(rng.randint(0, 3) if raw else 0):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x7F, 0x80, 0xF3, 0xFF, rng.randrange(256)))
        if rng.random() < 0.3:
            raw = raw[: rng.randrange(len(raw) + 1)] + rng.randbytes(rng.randint(0, 4))
        parts += stream(bytes(raw))
    return b"".join(parts)


def mutate(payload: bytes, other: bytes, rng: random.Random) -> bytes:
    """One mutation of `payload`, at times with a piece of `other`."""
    data = bytearray(payload)
    # Most of a large payload is entropy-coded; half of the mutations aim at the fields before it.
    place = rng.randrange(min(len(data), _HEADER_BYTES) if rng.random() < 0.5 else len(data))
    match rng.randrange(8):
        case 0:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[place:]
        case 2:
            data[place:] = other[rng.randrange(len(other)) :]
        case 3:
            data[place : place + 1] = varint(rng.choice(_EXTREMES))
        case 4:
            data[place:place] = rng.randbytes(rng.randint(1, 8))
        case 5:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
        case 6:
            data[place : place + 4] = struct.pack("<f", rng.choice((np.nan, np.inf, -1.0, 0.0, 1e-40, 3e38)))
        case _:
            return _mutate_content(payload, rng)
    return bytes(data)


def campaign(mutations: int, seed: int, num_params: int = NUM_PARAMS) -> Outcome:
    """Decodes that many mutated payloads."""
    rng = random.Random(seed)  # noqa: S311 - it must repeat, and secures nothing
    payloads = honest_payloads(num_params)
    decoded_count = 0
    slowest_s = 0.0
    broken: list[str] = []
    for _ in range(mutations):
        mutated = mutate(rng.choice(payloads), rng.choice(payloads), rng)
        begun = time.thread_time()
        try:
            decoded = decode(mutated, num_params)
        except CodecError:
            decoded = None
        except Exception as error:  # noqa: BLE001 - what else comes is what the campaign is after
            broken.append(f"{type(error).__name__}: {mutated.hex()}")
            continue
        took_s = time.thread_time() - begun
        slowest_s = max(slowest_s, took_s)
        if took_s > LONGEST_S:
            broken.append(f"{1000 * took_s:.0f} ms: {mutated.hex()}")
        if decoded is not None:
            decoded_count += 1
            if decoded.shape != (num_params,) or decoded.dtype != np.float32 or not np.isfinite(decoded).all():
                broken.append(f"not a finite vector: {mutated.hex()}")
    refused = mutations - decoded_count
    return Outcome(mutations, decoded_count, refused, round(1000 * slowest_s, 2), broken)


def limit_memory(num_params: int) -> int:
    """Bounds the address space of this process to what it uses now and what decode() promises; returns the latter."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    more = BOUND_BYTES + BOUND_BYTES_A_PARAM * num_params
    bound = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    return more


def main() -> None:
    """Prints a line for people and a JSON line; exits with 1 when a mutation broke anything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec_fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=1_000_000)
    parser.add_argument("--num-params", type=int, default=NUM_PARAMS)
    parser.add_argument("--seed", type=int, default=20)
    chosen = parser.parse_args()
    campaign(100, 0, chosen.num_params)  # so that everything is imported and allocated that ever will be
    limit_bytes = limit_memory(chosen.num_params)
    outcome = campaign(chosen.mutations, chosen.seed, chosen.num_params)
    print(
        f"{outcome.mutations} mutations within {limit_bytes >> 20} MiB: {outcome.decoded} decoded,",
        f"{outcome.refused} refused, {len(outcome.broken)} broken; slowest {outcome.slowest_ms} ms",
    )
    result = {
        "benchmark": "codec_fuzz",
        "seed": chosen.seed,
        "num_params": chosen.num_params,
        **msgspec.structs.asdict(outcome),
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.exit(1 if outcome.broken else 0)


if __name__ == "__main__":
    main()
