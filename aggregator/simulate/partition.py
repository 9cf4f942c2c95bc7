"""Which windows each node holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregator.simulate.scenario import PartitionConfig
from fieldfold.errors import ConfigError

Indices = NDArray[np.int64]
_SPLIT = 3


class Holdings(NamedTuple):
    """What is dealt out: of each window the series that it comes from and its class, (num_windows,).

    Attributes:
        classes: None where the task's target is not a class.
    """

    series: Indices
    classes: Indices | None


def deal(
    holdings: Holdings, config: PartitionConfig, is_slow: NDArray[np.bool_], fewest: int, seed: int
) -> list[Indices]:
    """Indices of windows, for each node; every node has at least `fewest`, windows of others if need be.

    Raises:
        ConfigError: when the task has no classes and the scenario deals them out.
    """
    rng = np.random.default_rng([seed, _SPLIT])
    nodes = len(is_slow)
    if config.by == "even" and not config.slow_only:
        dealt = np.array_split(rng.permutation(len(holdings.series)), nodes)
    elif config.by == "series" and not config.slow_only:
        dealt = _by_series(holdings.series, nodes, rng)
    else:
        dealt = _by_classes(holdings, config, is_slow, rng)
    return [_filled_up(np.sort(mine), len(holdings.series), fewest, rng) for mine in dealt]


def _by_series(series: Indices, nodes: int, rng: np.random.Generator) -> list[Indices]:
    """Whole series in turn; with fewer series than nodes, each is cut into blocks for those who share it."""
    order = rng.permutation(np.unique(series))
    mine: list[list[Indices]] = [[] for _ in range(nodes)]
    sharing = -(-nodes // len(order))
    for place, one in enumerate(order):
        where = np.flatnonzero(series == one)
        for turn, block in enumerate(np.array_split(where, sharing)):
            mine[(place + turn * len(order)) % nodes].append(block)
    return [np.concatenate(blocks) if blocks else np.empty(0, np.int64) for blocks in mine]


def _by_classes(
    holdings: Holdings, config: PartitionConfig, is_slow: NDArray[np.bool_], rng: np.random.Generator
) -> list[Indices]:
    """Each class by a Dirichlet draw over the nodes that may hold it."""
    if holdings.classes is None:
        raise ConfigError(
            "partition: the task has no classes to deal out", 'take by = "series" or by = "even", and no slow_only'
        )
    count = int(holdings.classes.max()) + 1
    slow, fast, everybody = np.flatnonzero(is_slow), np.flatnonzero(~is_slow), np.arange(len(is_slow))
    mine: list[list[Indices]] = [[] for _ in is_slow]
    alpha = config.alpha if config.by == "classes" else 1000.0
    for label in range(count):
        owners = everybody
        if config.slow_only and slow.size and fast.size:
            owners = slow if label >= count - config.slow_only else fast
        where = rng.permutation(np.flatnonzero(holdings.classes == label))
        shares = rng.dirichlet(np.full(len(owners), alpha))
        cuts = (np.cumsum(shares)[:-1] * len(where)).astype(np.int64)
        for owner, part in zip(owners, np.split(where, cuts), strict=True):
            mine[owner].append(part)
    return [np.concatenate(parts) for parts in mine]


def _filled_up(mine: Indices, total: int, fewest: int, rng: np.random.Generator) -> Indices:
    """With too few windows for a batch, its own again and again; with none at all, somebody's."""
    if len(mine) >= fewest:
        return mine
    source = mine if len(mine) else rng.integers(0, total, 1)
    return np.resize(source, fewest)
