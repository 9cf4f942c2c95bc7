"""An update is decoded once between verification and fold; what is kept for that is bounded, and never needed."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator import deltas
from aggregator.deltas import MOST_VECTORS, recall, remember
from fieldfold.codec import encode
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
    assert sum(each.size_bytes for each in deltas._waiting.values()) <= MOST_VECTORS * 4 * NUM_PARAMS
    assert (payload(49), NUM_PARAMS) in deltas._waiting


def test_what_does_not_decode_is_not_remembered() -> None:
    before = len(deltas._waiting)
    with pytest.raises(CodecError):
        remember(b"\xff" * 20, NUM_PARAMS)
    assert len(deltas._waiting) == before
