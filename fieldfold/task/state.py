"""Between a model's vectors, shared and local, and the flat inputs of the graphs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fieldfold.params import Layout, Vector
from fieldfold.task.manifest import Manifest


class ModelState(NamedTuple):
    """What the graphs call `parameters` and `buffers`: of each the shared elements, then the local ones."""

    parameters: Vector
    buffers: Vector


def joined(manifest: Manifest, shared: Vector, local: Vector) -> ModelState:
    """A state of its own from the travelling vector and the local one.

    Raises:
        ValueError: when a vector has another length than its layout.
    """
    _require(shared, manifest.layout)
    _require(local, manifest.local)
    parts = [(shared, manifest.layout.num_trained), (local, manifest.local.num_trained)]
    return ModelState(
        np.concatenate([vector[:trained] for vector, trained in parts], dtype=np.float32),
        np.concatenate([vector[trained:] for vector, trained in parts], dtype=np.float32),
    )


def anchored(manifest: Manifest, shared: Vector) -> Vector:
    """What the proximal term pulls towards: a copy of the trained elements of a travelling vector.

    Raises:
        ValueError: when it has another length than its layout.
    """
    _require(shared, manifest.layout)
    return shared[: manifest.layout.num_trained].astype(np.float32)


def shared_part(manifest: Manifest, state: ModelState) -> Vector:
    """A copy of the travelling vector."""
    layout = manifest.layout
    return np.concatenate(
        [state.parameters[: layout.num_trained], state.buffers[: layout.num_params - layout.num_trained]]
    )


def local_part(manifest: Manifest, state: ModelState) -> Vector:
    """A copy of the vector that stays on the gateway, empty where nothing is local."""
    layout: Layout = manifest.layout
    return np.concatenate(
        [state.parameters[layout.num_trained :], state.buffers[layout.num_params - layout.num_trained :]]
    )


def _require(vector: Vector, layout: Layout) -> None:
    if vector.shape != (layout.num_params,):
        raise ValueError(f"a vector of shape {vector.shape} does not fit {layout.num_params} parameters")
