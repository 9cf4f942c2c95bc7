"""From the aggregator's exact model to the released one that everybody holds. Pure."""

from __future__ import annotations

import msgspec
import numpy as np

from fieldfold.codec import add_all, decode_delta, encode
from fieldfold.params import Vector, digest
from fieldfold.wire.chunks import short
from fieldfold.wire.messages import ModelDelta, ModelSnapshot, pack

SNAPSHOT_PROFILE = "lossless"


class Release(msgspec.Struct, frozen=True):
    """A new version: the message that leads to it, and the parameters everybody then holds."""

    version: int
    delta: bytes
    released: Vector
    digest: str


def advance(exact: Vector, released: Vector, version: int, run: str, profile: str) -> Release:
    """Releases Q(x - x_hat): what the quantiser leaves out stays in x - x_hat and goes out with a later version.

    Args:
        exact: x, the aggregator's own model (float32, num_params).
        released: x_hat of `version`, what every node holds.
        version: the present version; the release is the next.
        run: the run's name, in hex.
        profile: the codec profile of the delta.
    """
    payload = encode(exact - released, profile)
    following = released + np.float32(0)  # -0 becomes 0, as where a node adds the whole vector
    add_all(following, [(np.float32(1), decode_delta(payload, released.size))])
    name = digest(following)
    message = ModelDelta(run=bytes.fromhex(run), version=version + 1, parameters=short(name), payload=payload)
    return Release(version + 1, pack(message), following, name)


def snapshot(released: Vector, version: int, run: str) -> bytes:
    """The whole released model as one object."""
    return pack(
        ModelSnapshot(
            run=bytes.fromhex(run),
            version=version,
            parameters=short(digest(released)),
            payload=encode(released, SNAPSHOT_PROFILE),
        )
    )
