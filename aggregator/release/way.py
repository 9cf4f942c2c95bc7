"""The cheapest way to the newest version, for whoever holds an older one. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fieldfold.wire.chunks import num_chunks

MESSAGE_BYTES = 110
"""What a chunk costs beside its data: its envelope, its topic, the headers of MQTT, TLS and TCP."""
SNAPSHOT_BYTES_PER_PARAMETER = 3
"""Roughly what a parameter takes in a snapshot; trained float32 have about 23 bits of entropy."""
SMALLEST_BYTES = 4096
"""A snapshot counts as this large at least: that of a tiny model is not worth its place in the ledger every time."""


def on_the_wire(size_bytes: int, chunk_bytes: int) -> int:
    """Bytes that an object costs who fetches it."""
    return size_bytes + MESSAGE_BYTES * num_chunks(size_bytes, chunk_bytes)


def deltas_from(costs: Mapping[int, int], snapshot_version: int, snapshot_cost: int) -> int:
    """The lowest version from which the deltas to the snapshot's version cost no more than the snapshot itself.

    Whoever holds it or a newer one takes deltas; whoever holds less takes the snapshot. From there on both go the
    same way.

    Args:
        costs: version -> bytes of the delta that leads to it; the way ends where one is missing.
        snapshot_version: where the snapshot leads.
        snapshot_cost: its bytes.
    """
    version, spent = snapshot_version, 0
    while version > 0 and version in costs and spent + costs[version] <= snapshot_cost:
        spent += costs[version]
        version -= 1
    return version


def snapshot_is_due(delta_bytes: int, versions: int, num_params: int, at_most: int) -> bool:
    """Whether the deltas since the last snapshot weigh half of one, or are `at_most` versions.

    A newcomer then reads at most one and a half snapshots, and to publish them costs no more than twice the deltas.
    """
    return versions >= at_most or 2 * delta_bytes >= max(SMALLEST_BYTES, SNAPSHOT_BYTES_PER_PARAMETER * num_params)
