"""What a node sends that lies. Pure; `own` is what it would send if it did not.

ALIE: Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019. Min-max: Shejwalkar and Houmansadr,
"Manipulating the Byzantine", NDSS 2021. Mimic: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous
Datasets", ICLR 2022. The attackers see all that the honest have sent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fieldfold.params import Vector, as_vector, norm

FLIPPED = -3.0
LOUDER = 10.0
"""Length of noise, in lengths of an honest delta."""
FALSE_LOSSES = {"low": 0.0, "high": 1e6}


def sign_flip(own: Vector) -> Vector:
    """Three times as far into the other direction."""
    return np.float32(FLIPPED) * own


def noise(own: Vector, rng: np.random.Generator) -> Vector:
    """No direction at all, and ten times as long."""
    drawn = rng.standard_normal(own.size, np.float32)
    return drawn * np.float32(LOUDER * norm(own) / max(norm(drawn), 1e-30))


def alie(honest: NDArray[np.float32]) -> Vector:
    """One standard deviation below the mean of what the honest sent last, (nodes, num_params), in every parameter."""
    return as_vector(honest.mean(0) - honest.std(0))


def min_max(honest: NDArray[np.float32]) -> Vector:
    """As far against the mean as leaves it no farther from any honest delta than two of those are from each other."""
    mean = honest.mean(0, dtype=np.float64)
    direction = -mean / max(float(np.linalg.norm(mean)), 1e-30)
    around = honest - mean
    squares = np.einsum("ij,ij->i", around, around)
    products = around @ around.T
    widest = float((squares[:, None] + squares[None] - 2 * products).max())
    along = around @ direction
    # |mean + g direction - u|^2 = squares - 2 g along + g^2 <= widest, for every u
    farthest = float(np.min(along + np.sqrt(np.maximum(along * along - squares + widest, 0.0))))
    return as_vector(mean + farthest * direction)
