"""The codec alone: speed, memory, size, error, and the distance from the order-0 entropy of what it sends.

One thread. Speeds are of the float32 that goes in or comes out, in seconds of the process's own CPU time, the median
of several runs: other programs on the machine then cost caches, but no time. Memory is what is allocated at the peak
beside what goes in, in multiples of the vector. Three deltas are a client's in the training of wide models.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.learning import data
from benchmarks.learning.fedbuff import Trainee
from benchmarks.learning.models import WIDE
from fieldfold.codec import PROFILES, Profile, decode, encode
from fieldfold.codec.quantise import dead_zone, peak_of, uniform
from fieldfold.codec.stochastic import stochastic
from fieldfold.params import Vector, as_vector

MB = 1e6
SEED = 1
WARM_UP_UPDATES = 4
WANTED = {"encode_mb_s": 400, "decode_mb_s": 1000, "memory_of_vector": 2.5, "profiles": ["balanced", "int8"]}

Result = TypeVar("Result")


class Row(msgspec.Struct, frozen=True):
    """One profile on one kind of delta.

    Attributes:
        error: `||d - d'||^2 / ||d||^2`.
        entropy_bits: order-0 entropy of the quantised levels, bits a parameter; of the bytes for float32 and float16.
        above_entropy: size over that entropy, less 1.
        encode_memory: peak allocation over the size of the vector.
    """

    delta: str
    profile: str
    encode_mb_s: float
    decode_mb_s: float
    encode_memory: float
    decode_memory: float
    bits: float
    error: float
    entropy_bits: float
    above_entropy: float


def trained_delta(model: str) -> Vector:
    """A client's delta in the training of a model with about 8 million parameters."""
    federation = (data.digits if model == "mlp" else data.engines)(0)
    trainee = Trainee(WIDE[model], 0)
    parameters = trainee.flat.numpy().copy()
    for update, shard in enumerate(federation.nodes[:WARM_UP_UPDATES]):
        parameters = parameters + trainee.train(parameters, shard, 0, update) * np.float32(0.5)
    return trainee.train(parameters, federation.nodes[WARM_UP_UPDATES], 0, WARM_UP_UPDATES)


def deltas(num_params: int) -> Iterator[tuple[str, Vector]]:
    """Kinds of deltas by name."""
    rng = np.random.default_rng(1)
    for model in WIDE:
        yield model, trained_delta(model)
    yield "student t, 3", as_vector(rng.standard_t(3, num_params) * 1e-3)
    yield "gaussian", as_vector(rng.standard_normal(num_params, np.float32))
    sparse = np.zeros(num_params, np.float32)
    places = rng.choice(num_params, num_params // 100, replace=False)
    sparse[places] = rng.standard_normal(places.size, np.float32)
    yield "1 % non-zero", sparse
    outliers = rng.standard_normal(num_params, np.float32)
    outliers[:: num_params // 10] *= 1e4
    yield "ten outliers", outliers


def entropy_bits(symbols: NDArray[np.integer]) -> float:
    """Order-0 entropy of all `symbols` together, in bits."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def levels_entropy_bits(delta: Vector, profile: Profile) -> float:
    """Entropy of what the profile makes of `delta` before any of it is laid out."""
    if profile.error_target:
        peak = peak_of(delta)
        quantised = (
            stochastic(delta, peak, profile.error_target, SEED)
            if profile.is_unbiased
            else dead_zone(delta, peak, profile.error_target, profile.max_bits or math.inf)
        )
        zeros = quantised.num_params - quantised.levels.size
        counts = np.append(np.unique(quantised.levels, return_counts=True)[1], zeros)
        counts = counts[counts > 0]
        return float((counts * np.log2(counts.sum() / counts)).sum())
    if profile.method == "uniform":
        return entropy_bits(uniform(delta, peak_of(delta), profile.max_level)[1])
    elements = delta.astype("<f2" if profile.method == "float16" else "<f4")
    planes = elements.view(np.uint8).reshape(delta.size, -1)
    return sum(entropy_bits(plane) for plane in planes.T)


def timed(action: Callable[[], Result], repeats: int) -> tuple[float, float, Result]:
    """Median seconds of CPU time, peak bytes beside what was there before, and the result."""
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        result = action()
        seconds.append(time.process_time() - begun)
    del result
    tracemalloc.start()
    try:
        result = action()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return statistics.median(seconds), peak_bytes, result


def measure(name: str, delta: Vector, profile: Profile, repeats: int) -> Row:
    """Encodes and decodes one delta."""
    encode_s, encode_peak, payload = timed(lambda: encode(delta, profile, seed=SEED), repeats)
    decode_s, decode_peak, decoded = timed(lambda: decode(payload, delta.size), repeats)
    exact = delta.astype(np.float64)
    entropy = levels_entropy_bits(delta, profile)
    return Row(
        delta=name,
        profile=profile.name,
        encode_mb_s=delta.nbytes / MB / encode_s,
        decode_mb_s=delta.nbytes / MB / decode_s,
        encode_memory=encode_peak / delta.nbytes,
        decode_memory=decode_peak / delta.nbytes,
        bits=8 * len(payload) / delta.size,
        error=float(np.square(exact - decoded).sum() / np.square(exact).sum()),
        entropy_bits=entropy / delta.size,
        above_entropy=8 * len(payload) / entropy - 1,
    )


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--num-params", type=int, default=8_000_000, help="of the synthetic deltas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("delta         profile    encode  decode MB/s   memory x vector  bits/parameter   error    entropy  above")
    rows = []
    for name, delta in deltas(chosen.num_params):
        for profile in chosen.profiles:
            row = measure(name, delta, PROFILES[profile], chosen.repeats)
            rows.append(row)
            print(
                f"{row.delta:<13} {row.profile:<9} {row.encode_mb_s:7.0f}  {row.decode_mb_s:6.0f}       "
                f"{row.encode_memory:5.2f} {row.decode_memory:5.2f}  {row.bits:17.4f}  {row.error:8.1e}"
                f"  {row.entropy_bits:8.4f}  {100 * row.above_entropy:+4.0f} %",
                flush=True,
            )
    result = {"benchmark": "codec", "num_params": chosen.num_params, "wanted": WANTED, "rows": rows}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
