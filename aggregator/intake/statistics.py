"""Feature sums of the nodes become the normalisation of the fleet."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aggregator.config import NormalisationConfig
from fieldfold.sensors.statistics import FeatureSums, Normalisation, check, merge, normalisation
from fieldfold.wire.messages import Statistics


def accept(message: Statistics, num_features: int) -> bytes:
    """Checks a node's sums and gives them in the ledger's form.

    Raises:
        DataError: when they cannot be sums of any data.
    """
    sums = FeatureSums(message.count, message.total, message.total_of_squares)
    check(sums, num_features)
    return msgspec.msgpack.encode(sums)


def is_due(nodes: int, waited_s: float, config: NormalisationConfig) -> bool:
    """Whether what has come is to be released now."""
    return nodes > 0 and (0 < config.nodes <= nodes or waited_s >= config.patience_s)


def fuse(sums: Mapping[str, bytes]) -> Normalisation:
    """Mean and standard deviation over the rows of all nodes."""
    total: FeatureSums | None = None
    for packed in sums.values():
        one = msgspec.msgpack.decode(packed, type=FeatureSums)
        total = one if total is None else merge(total, one)
    if total is None:
        raise ValueError("there are no statistics to merge")
    return normalisation(total)
