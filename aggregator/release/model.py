"""From the aggregator's exact model to the released one that everybody holds. Pure."""

from __future__ import annotations

import msgspec
import numpy as np

from fieldfold.codec import decode, encode
from fieldfold.params import Vector, digest
from fieldfold.sensors.statistics import Normalisation
from fieldfold.wire.chunks import short
from fieldfold.wire.messages import ModelDelta, ModelSnapshot, pack

SNAPSHOT_PROFILE = "lossless"


class Release(msgspec.Struct, frozen=True):
    """A new version: the message that leads to it, and the parameters everybody then holds."""

    version: int
    delta: bytes
    released: Vector
    digest: str


def advance(exact: Vector, released: Vector, version: int, task: str, profile: str) -> Release:
    """Releases Q(x - x_hat): what the quantiser leaves out stays in x - x_hat and goes out with a later version.

    Args:
        exact: x, the aggregator's own model (float32, num_params).
        released: x_hat of `version`, what every node holds.
        version: the present version; the release is the next.
        task: digest of the bundle, in hex.
        profile: the codec profile of the delta.
    """
    payload = encode(exact - released, profile)
    following = released + decode(payload, released.size)
    name = digest(following)
    message = ModelDelta(task=short(task), version=version + 1, parameters=short(name), payload=payload)
    return Release(version + 1, pack(message), following, name)


def snapshot(released: Vector, version: int, task: str, normalisation: Normalisation | None) -> bytes:
    """The whole released model as one object, with the normalisation that its inputs need."""
    empty = np.empty(0, "<f8")
    mean = empty if normalisation is None else np.asarray(normalisation.mean, "<f8")
    std = empty if normalisation is None else np.asarray(normalisation.std, "<f8")
    return pack(
        ModelSnapshot(
            task=short(task),
            version=version,
            parameters=short(digest(released)),
            mean=mean.tobytes(),
            std=std.tobytes(),
            payload=encode(released, SNAPSHOT_PROFILE),
        )
    )
