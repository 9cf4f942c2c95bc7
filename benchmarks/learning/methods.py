"""What is compared: ways to bring a node's delta to the server, each with its bytes counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import zstandard

from benchmarks.learning.downlink import Broadcast, exact, quantised
from fieldfold.codec import ErrorFeedback, decode, encode
from fieldfold.params import Vector

Send: TypeAlias = Callable[[int, Vector], tuple[int, Vector]]
"""Node and delta (n,) to the bytes sent and what arrives (n,)."""

_TOP_SHARE = 0.01


def float32() -> Send:
    """Four bytes a parameter, what FedBuff sends without a codec."""
    return lambda _node, delta: (delta.nbytes, delta)


def profile(name: str, seed: int) -> Send:
    """A profile of ours as a node uses it: with error feedback where it has any, another seed for every update."""
    residuals: dict[int, ErrorFeedback] = {}
    draws = itertools.count(seed << 32)

    def send(node: int, delta: Vector) -> tuple[int, Vector]:
        feedback = residuals.get(node) or ErrorFeedback.start(delta.size)
        encoded = feedback.encode(delta, name, seed=next(draws))
        residuals[node] = encoded.feedback
        return len(encoded.payload), encoded.decoded

    return send


def rounded(name: str) -> Send:
    """`int8` or `int4` without feedback, entropy-coded by us: smaller than what other frameworks ship."""

    def send(_node: int, delta: Vector) -> tuple[int, Vector]:
        payload = encode(delta, name)
        return len(payload), decode(payload, delta.size)

    return send


def _with_feedback(compress: Callable[[Vector], tuple[int, Vector]]) -> Send:
    residuals: dict[int, Vector] = {}

    def send(node: int, delta: Vector) -> tuple[int, Vector]:
        wanted = delta + residuals.get(node, np.float32(0))
        size, arrived = compress(wanted)
        residuals[node] = wanted - arrived
        return size, arrived

    return send


def top_one_per_cent() -> Send:
    """The largest hundredth as float16 with entropy-coded gaps, with feedback (Aji and Heafield, 2017)."""

    def compress(wanted: Vector) -> tuple[int, Vector]:
        count = max(1, round(wanted.size * _TOP_SHARE))
        places = np.sort(np.argpartition(np.abs(wanted), -count)[-count:])
        kept = wanted[places].astype(np.float16)
        gaps = np.diff(places, prepend=-1).astype("<u2")
        planes = zstandard.ZstdCompressor(level=19).compress(gaps.view(np.uint8).reshape(-1, 2).T.tobytes())
        arrived = np.zeros_like(wanted)
        arrived[places] = kept
        return min(len(planes), gaps.nbytes) + kept.nbytes, arrived

    return _with_feedback(compress)


def sign(sizes: list[int]) -> Send:
    """One bit a parameter and a scale a tensor, with feedback (Karimireddy et al., 2019)."""
    starts = np.cumsum([0, *sizes[:-1]])
    size_bytes = -(-sum(sizes) // 8) + 4 * len(sizes)

    def compress(wanted: Vector) -> tuple[int, Vector]:
        scales = np.add.reduceat(np.abs(wanted), starts) / sizes
        arrived = np.where(wanted < 0, -1, 1) * np.repeat(scales, sizes)
        return size_bytes, arrived.astype(np.float32)

    return _with_feedback(compress)


def _hadamard(values: Vector) -> Vector:
    """The orthonormal Walsh-Hadamard transform of a vector whose length is a power of two."""
    width = 1
    while width < values.size:
        pairs = values.reshape(-1, 2, width)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        width *= 2
    return values / np.float32(values.size**0.5)


def eden(seed: int) -> Send:
    """One bit a parameter after a random rotation, unbiased, without feedback (Vargaftik et al., 2022).

    Charged n bits and 8 bytes, although the rotation pads to a power of two.
    """
    rng = np.random.default_rng([seed, 4])

    def send(_node: int, delta: Vector) -> tuple[int, Vector]:
        width = 1 << (delta.size - 1).bit_length()
        flips = rng.choice(np.array([-1, 1], np.float32), width)
        rotated = _hadamard(np.pad(delta, (0, width - delta.size)) * flips)
        signs = np.where(rotated < 0, np.float32(-1), np.float32(1))
        scale = float(delta @ delta) / max(float(rotated @ signs), 1e-30)
        arrived = _hadamard(signs) * flips * np.float32(scale)
        return -(-delta.size // 8) + 8, arrived[: delta.size]

    return send


class Method(NamedTuple):
    """What goes which way, and how far the run is followed.

    Attributes:
        send: makes the uplink of one run.
        broadcast: the downlink.
        draws: runs with other batches each.
        only_to_target: for what is compared by its bytes to the target alone.
    """

    send: Callable[[], Send]
    broadcast: Broadcast = exact
    draws: int = 1
    only_to_target: bool = False


def methods(sizes: list[int], seed: int) -> Mapping[str, Method]:
    """Every method, for a model whose tensors have `sizes`."""
    release = quantised("compensated")
    return {
        "float32": Method(float32, draws=2),
        "balanced": Method(lambda: profile("balanced", seed), draws=2),
        "frugal": Method(lambda: profile("frugal", seed), draws=2),
        "balanced, both ways": Method(lambda: profile("balanced", seed), release, draws=2),
        "frugal, both ways": Method(lambda: profile("frugal", seed), release, draws=2),
        "int8": Method(lambda: rounded("int8"), only_to_target=True),
        "int4": Method(lambda: rounded("int4"), only_to_target=True),
        "top 1 % + feedback": Method(top_one_per_cent, only_to_target=True),
        "sign + feedback": Method(lambda: sign(sizes), only_to_target=True),
        "EDEN 1 bit": Method(lambda: eden(seed), only_to_target=True),
    }
