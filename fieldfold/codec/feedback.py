"""Error feedback: what one update could not carry, the next one does.

A lossy profile sends part of a delta. The rest, the residual, is added to the next delta before that is
encoded, so that over time everything arrives (Seide et al., 1-bit stochastic gradient descent, 2014;
Karimireddy et al., Error feedback fixes SignSGD, 2019). Since deltas are additive and a residual is a delta
that has not arrived yet, it may be carried over to whatever base version the next update starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from fieldfold.codec.payload import decode, encode
from fieldfold.codec.profile import DEFAULT_PROFILE, Profile, find_profile
from fieldfold.errors import CodecError
from fieldfold.params import Vector, is_finite, norm


@dataclass(frozen=True, eq=False)
class ErrorFeedback:
    """What has been trained and not yet sent. A value: every method returns a new one.

    For each update that was encoded exactly one of these comes true:

    - it was accepted: nothing to do, the residual already holds the rest;
    - it was rejected or expired before it was folded: `restore` takes back what it carried, at any time and in
      any order, also after later updates were encoded. (Where the reason was the content itself, a norm too
      large, leave it out instead: the next update would only be larger.)
    - it was superseded before anything left, by a delta that *contains* it (same base, trained further):
      go on from the ErrorFeedback of before, so keep that beside the payload until the first byte leaves;
      if the newer delta only holds what came since, `restore` as above.

    A profile that rounds at random leaves no residual, but what it was to carry must still be kept to be restored:
    the payload itself holds it with up to 20 times its energy in noise.

    Attributes:
        residual: (n,) float32, read-only.
        num_trained: elements from here on are buffers, which are sent as they are and leave no residual.
    """

    residual: Vector
    num_trained: int

    def __post_init__(self) -> None:
        if not 0 <= self.num_trained <= self.residual.size:
            raise CodecError(f"num_trained is {self.num_trained}, the residual has {self.residual.size} elements")
        frozen = self.residual.view()
        frozen.setflags(write=False)
        object.__setattr__(self, "residual", frozen)

    @classmethod
    def start(cls, num_params: int, *, num_trained: int | None = None) -> Self:
        """Nothing left over, for vectors of `num_params` elements."""
        return cls(np.zeros(num_params, np.float32), num_params if num_trained is None else num_trained)

    @classmethod
    def from_bytes(cls, data: bytes, num_params: int, *, num_trained: int | None = None) -> Self:
        """What `to_bytes` stored.

        Raises:
            CodecError: when the bytes are damaged or of another number of parameters.
        """
        return cls(decode(data, num_params), num_params if num_trained is None else num_trained)

    def to_bytes(self) -> bytes:
        """The residual, without loss, to be stored beside the update it belongs to."""
        return encode(self.residual, "lossless")

    def encode(self, delta: Vector, profile: str | Profile = DEFAULT_PROFILE, *, seed: int | None = None) -> Encoded:
        """Encodes `delta` (n,) together with the residual.

        An unbiased profile (its `seed`: see `fieldfold.codec.encode`) leaves none: to bring later what a draw lost
        would tie an update to the draws before it. What another profile left earlier still goes out.

        Raises:
            CodecError: as `fieldfold.codec.encode` does, and when the shapes differ; this value stays valid.
        """
        if delta.shape != self.residual.shape:
            raise CodecError(f"a delta of shape {delta.shape} does not fit a residual of {self.residual.shape}")
        with np.errstate(over="ignore"):  # encode() refuses infinity, and says where
            wanted = np.add(delta, self.residual)
        chosen = find_profile(profile)
        payload = encode(wanted, chosen, num_trained=self.num_trained, seed=seed)
        decoded = decode(payload, wanted.size)
        carried = encode(wanted, "lossless") if chosen.is_unbiased else payload
        length = norm(wanted)
        np.subtract(wanted, decoded, out=wanted)
        wanted[0 if chosen.is_unbiased else self.num_trained :] = 0
        return Encoded(payload, decoded, ErrorFeedback(wanted, self.num_trained), carried, length)

    def restore(self, carried: bytes) -> ErrorFeedback:
        """Puts back what an update, encoded earlier and never folded, would have carried.

        Raises:
            CodecError: when the bytes are damaged, or the sum is no longer finite.
        """
        with np.errstate(over="ignore"):
            residual = self.residual + decode(carried, self.residual.size)
        residual[self.num_trained :] = 0
        if not is_finite(residual):
            raise CodecError("the residual overflows", "start again with an empty one")
        return ErrorFeedback(residual, self.num_trained)


class Encoded(NamedTuple):
    """One update, encoded with error feedback.

    Attributes:
        payload: what to send.
        decoded: (n,) float32, what the receiver will make of it, bit for bit.
        feedback: to be stored together with the payload, and used for the next update.
        carried: what `restore` takes should it never be folded: the payload, or where that is rounded at random, what
            it stands for, without loss.
        norm: Euclidean norm of what the payload stands for, before it was quantised.
    """

    payload: bytes
    decoded: Vector
    feedback: ErrorFeedback
    carried: bytes
    norm: float
