"""What the federated model is to be measured against: each gateway alone, and all data in one place.

Same network, same training and validation engines as in the federation, trained well past the point where the error
on the validation engines falls no more; the parameters that were best there are the result. The official test
engines are looked at once, with these.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from fieldfold.params import Vector
from fieldfold.sensors.dataset import Dataset, load
from fieldfold.sensors.source import DataConfig
from fieldfold.sensors.statistics import Normalisation, normalisation
from fieldfold.task import open_runtime
from fieldfold.task.bundle import Bundle

DATA = Path(__file__).resolve().parent / "data"
COLUMNS: dict[str, str | int] = {f"s{n}": n + 5 for n in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)}
LOOK_EVERY = 50


class Schedule(msgspec.Struct, frozen=True):
    """How long and how fast.

    The rate falls geometrically to a tenth over `falling_steps`. `max_steps` is far beyond the best validation error.
    """

    learning_rate: float
    falling_steps: int
    max_steps: int


ALONE = Schedule(learning_rate=1.5e-3, falling_steps=700, max_steps=1000)
POOLED = Schedule(learning_rate=2e-3, falling_steps=2700, max_steps=4000)


def test_set(bundle: Bundle) -> Dataset:
    """The official test: the last window of each of the 100 test engines, with its true remaining life."""
    config = DataConfig(
        files=("test_FD001.txt.gz",), series=1, columns=COLUMNS, ends="RUL_FD001.txt.gz", windows="last"
    )
    return load(bundle.manifest.data, config, DATA, held_out=True)


def training_set(bundle: Bundle, engines: tuple[int, ...]) -> Dataset:
    """The engines of a gateway, or of several, split into training and validation as every gateway splits them."""
    config = DataConfig(files=("train_FD001.txt.gz",), series=1, columns=COLUMNS, include_series=engines)
    return load(bundle.manifest.data, config, DATA)


def test_error(bundle: Bundle, parameters: Vector, scale: Normalisation) -> float:
    """RMSE in cycles on the official test set."""
    found = open_runtime(bundle).evaluate(parameters, test_set(bundle).normalised(scale).test.all())
    return found.metrics[bundle.manifest.metrics[0].name]


def train_until_converged(bundle: Bundle, engines: tuple[int, ...], schedule: Schedule, seed: int) -> float:
    """Trains on these engines only, normalised with their own statistics; returns the official test RMSE."""
    raw = training_set(bundle, engines)
    scale = normalisation(raw.sums)
    data = raw.normalised(scale)
    runtime = open_runtime(bundle)
    name = bundle.manifest.metrics[0].name
    validation = data.validation.all()
    best = bundle.initial_parameters()
    lowest = runtime.evaluate(best, validation).metrics[name]
    runtime.begin(best)
    batches = data.train.batches(bundle.manifest.batch_size, np.random.default_rng(seed))
    for step, batch in zip(range(1, schedule.max_steps + 1), batches, strict=False):
        rate = schedule.learning_rate * max(0.1, 0.1 ** (step / schedule.falling_steps))
        runtime.step(batch, learning_rate=rate, seed=seed * 1_000_003 + step)
        if step % LOOK_EVERY == 0:
            parameters = runtime.parameters()
            error = runtime.evaluate(parameters, validation).metrics[name]
            if error < lowest:
                lowest, best = error, parameters
    return test_error(bundle, best, scale)
