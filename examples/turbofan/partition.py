"""Which gateway owns which engines: a synthetic split of FD001 by engine, drawn from a seed."""

from __future__ import annotations

import numpy as np

GATEWAYS = 12
ENGINES = 100
FEWEST, MOST = 4, 8


def partition(seed: int) -> dict[str, tuple[int, ...]]:
    """Gateway name -> its engines; sizes are drawn from 4 to 8, engines without replacement.

    The engines that nobody drew are used by nobody.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(ENGINES) + 1
    owned: dict[str, tuple[int, ...]] = {}
    start = 0
    for number, size in enumerate(rng.integers(FEWEST, MOST + 1, GATEWAYS), 1):
        owned[f"gateway-{number:02}"] = tuple(sorted(int(engine) for engine in order[start : start + size]))
        start += int(size)
    return owned
