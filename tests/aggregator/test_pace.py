"""Rate-corrected FedBuff: in the long run every node moves the model equally, however often it speaks."""

from __future__ import annotations

import collections
import heapq
from typing import Any

import numpy as np
import pytest

from aggregator.fold.contribution import Contribution
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from fieldfold.codec import encode

NUM_PARAMS = 4
DELTA = encode(np.ones(NUM_PARAMS, np.float32), "lossless")


@pytest.mark.parametrize(("nodes", "buffer_size"), [(2, 2), (2, 1), (3, 3), (5, 2), (12, 6), (12, 12), (10, 0)])
def test_a_node_ten_times_slower_moves_the_model_as_much_as_the_others(nodes: int, buffer_size: int) -> None:
    method = RateCorrectedFedBuff(buffer_size=buffer_size, max_rate=100.0)
    moved: collections.Counter[int] = collections.Counter()
    state: Any = method.init()
    arrivals = [(1.0 + 0.01 * node, node) for node in range(nodes)]
    for count in range(400 * nodes):
        now, node = heapq.heappop(arrivals)
        heapq.heappush(arrivals, (now + (10.0 if node == 0 else 1.0), node))
        state, step = method.fold(state, Contribution(f"n{node}", DELTA, 0, 10, 2.0), NUM_PARAMS)
        if step is not None and count > 100 * nodes:
            moved.update({int(name[1:]): weight for name, weight in step.weights.items()})
    fast = [moved[node] for node in range(1, nodes)]
    assert 0.75 < moved[0] / (sum(fast) / len(fast)) < 1.35
