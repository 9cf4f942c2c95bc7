"""How much of an update the codec left out. Pure."""

from __future__ import annotations

from fieldfold.codec import Encoded, decode
from fieldfold.params import norm


def share_left_out(encoded: Encoded) -> float:
    """Length of what was left out or rounded away, as a share of the length of what was to be carried.

    Above 1 for a profile that rounds at random: what it sends is right on average, and far from it each time.
    """
    if encoded.carried is encoded.payload:
        left = encoded.feedback.residual
        wanted = encoded.decoded + left
    else:
        wanted = decode(encoded.carried, encoded.decoded.size)
        left = wanted - encoded.decoded
    length = norm(wanted)
    return norm(left) / length if length > 0 else 0.0
