"""Made-up batches for the parity gate, at which one bit of rounding decides nothing.

At the edge of a ReLU, between two nearly equal maxima, at a branch of `torch.where`, the last bit of an activation
decides where a gradient flows. Then no two float32 runs end together, and float64 torch, begun one float32 rounding
aside, ends 1e-5 to 1e-3 from its own result (measured on a U-Net and a CNN); on other batches the same runs end 1e-7
apart. So the gate trains on batches that have nothing on an edge.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.samples import Arrays
from fieldfold.task.manifest import Manifest

_EVEN = 1e-7
"""Of a gradient's second difference: smooth models stay below 1e-9, one activation on an edge makes 1e-6 and more."""
_DRAWS = 18
_SEEDS_APART = 1000


class Trial(NamedTuple):
    """Rows of a batch, the seed of the first, and what a step is told beside it."""

    rows: int
    seed: int
    proximal: float
    clip_norm: float
    weighted: bool


class Drawn(NamedTuple):
    """A batch, and the keyword arguments of the step that is taken with it."""

    batch: dict[str, NDArray[Any]]
    options: dict[str, Any]


class EvenBatches:
    """Draws one batch a step.

    Attributes:
        even: whether each so far was. A large network has something on an edge in every batch; the first search
            in vain is the last.
    """

    def __init__(self, arrays: Arrays, manifest: Manifest, trial: Trial) -> None:
        self.even = True
        self._arrays = arrays
        self._manifest = manifest
        self._trial = trial

    def draw(self, index: int, run: ReferenceRun) -> Drawn:
        """The batch of step `index` for the parameters that `run` has come to, of fewer rows the longer it takes."""
        for draw in range(_DRAWS):
            seed = self._trial.seed + index + draw * _SEEDS_APART
            drawn = self._made_up(max(2, self._trial.rows >> (3 * draw // _DRAWS)), seed)
            if not self.even:
                return drawn
            slopes = run.unevenness(drawn.batch, seed=seed, weights=drawn.options.get("weights"))
            if all(jump <= _EVEN for jump in slopes):
                return drawn
        self.even = False
        return drawn

    def _made_up(self, rows: int, seed: int) -> Drawn:
        """Weights and noise only in the trial that has everything."""
        trial, manifest = self._trial, self._manifest
        rng = np.random.default_rng(seed)
        options: dict[str, Any] = {
            "learning_rate": manifest.learning_rate.initial,
            "proximal": trial.proximal,
            "clip_norm": trial.clip_norm,
            "seed": seed,
        }
        if trial.weighted:
            options["weights"] = np.append(rng.choice([0.0, 0.5, 1.0], rows - 1), 1.0).astype(np.float32)
        if trial.weighted and manifest.privacy is not None:
            noise = rng.standard_normal(manifest.num_trained, np.float32)
            options["noise"] = noise * np.float32(manifest.privacy.norm)
        return Drawn(self._arrays.sample(rows, seed), options)
