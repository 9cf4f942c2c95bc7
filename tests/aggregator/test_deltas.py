"""An update is decoded once between verification and fold; what is kept for that is bounded, and never needed."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator import deltas
from aggregator.deltas import MOST_VECTORS, recall, remember
from fieldfold.codec import decode, encode
from fieldfold.errors import CodecError

NUM_PARAMS = 1000


def payload(seed: int) -> bytes:
    return encode(np.random.default_rng(seed).normal(size=NUM_PARAMS).astype(np.float32), "lossless")


def test_what_was_verified_is_folded_without_decoding_it_again() -> None:
    first = remember(payload(1), NUM_PARAMS)
    assert recall(bytes(bytearray(payload(1))), NUM_PARAMS) is first
    assert recall(payload(1), NUM_PARAMS) is not first
    assert recall(payload(1), NUM_PARAMS).dense().tobytes() == first.dense().tobytes()


def test_it_holds_a_few_vectors_and_no_more() -> None:
    for seed in range(50):
        remember(payload(seed), NUM_PARAMS)
    kept = deltas._waiting._found.values()
    assert sum(each.size_bytes for _, each, _ in kept) == deltas._waiting.size_bytes <= MOST_VECTORS * 4 * NUM_PARAMS
    newest = remember(payload(49), NUM_PARAMS)
    assert recall(payload(49), NUM_PARAMS) is newest


def test_payloads_that_end_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "_TAIL_BYTES", 1)
    seen: dict[int, bytes] = {}
    for seed in range(257):
        other = payload(seed)
        one = seen.setdefault(other[-1], other)
        if one != other:
            break
    assert one != other
    remember(one, NUM_PARAMS)
    assert recall(other, NUM_PARAMS).dense().tobytes() == decode(other, NUM_PARAMS).tobytes()


def test_what_does_not_decode_is_not_remembered() -> None:
    before = len(deltas._waiting._found)
    with pytest.raises(CodecError):
        remember(b"\xff" * 20, NUM_PARAMS)
    assert len(deltas._waiting._found) == before
