"""Ledgers with a past: four nodes, several methods, and a crash wherever the method changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aggregator.fold.methods import AnyMethod
from tests.aggregator.tiny import Plant, random_delta, update

NODES = ("press-1", "press-2", "press-3", "press-4")
UPDATES = 16
"""In each method's time."""


def live_through(plant: Plant, count: int, seed: int = 7) -> None:
    """Updates of four nodes, one of them slow, from versions up to three old; each folded when it came."""
    generator = np.random.default_rng(seed)
    for turn in range(count):
        node = NODES[3] if turn % 7 == 6 else NODES[turn % 3]
        base = max(0, plant.model.version - int(generator.integers(0, 4)))
        sequence = plant.ledger.next_sequence(node)
        plant.send(update(node, sequence, delta=random_delta(generator), base_version=base))
        plant.fold()


def written(path: Path, *methods: AnyMethod, snapshot_every: int = 3) -> Path:
    """A ledger of UPDATES contributions under each method, one after the other, which nobody runs on."""
    plant = Plant(path, methods[0], snapshot_every=snapshot_every)
    for method in methods:
        if method != plant.method:
            plant.method = method
            plant.crash()
        live_through(plant, UPDATES)
    plant.ledger.close()
    return path
