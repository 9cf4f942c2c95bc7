"""How much a delta may lose on its way, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from fieldfold.errors import CodecError

MIN_ERROR_TARGET = 1e-3
MAX_ERROR_TARGET = {"dead_zone": 0.99, "stochastic": 30.0}
MAX_BITS = 32


@dataclass(frozen=True)
class Profile:
    """One way to turn a delta into bytes.

    Attributes:
        name: how it is asked for.
        method: `float32` keeps every bit; `float16` rounds each element; `uniform` rounds to
            `2 * max_level + 1` evenly spaced values that span the largest element; `dead_zone` rounds
            to multiples of the largest step that keeps the error at `error_target`, and what is small
            against the step to zero; `stochastic` rounds up or down at random, so that on average nothing is
            lost, and for that leaves no residual to error feedback.
        cost: one line for people: size and what it costs in accuracy.
        max_level: `uniform` only; 1 to 127.
        error_target: `||d - d'||^2 / ||d||^2`, from 1e-3; of `dead_zone` to 0.99, of `stochastic` on average, to 30.
        max_bits: `dead_zone` only; a delta whose levels would need more bits a parameter (their order-0 entropy) is
            rounded more coarsely than its error target asks for. At most 32; 0 for no bound.

    Raises:
        ValueError: when a field that the method needs is absent, or one that it ignores is given.
    """

    name: str
    method: Literal["float32", "float16", "uniform", "dead_zone", "stochastic"]
    cost: str = ""
    max_level: int = 0
    error_target: float = 0.0
    max_bits: float = 0.0

    @property
    def is_unbiased(self) -> bool:
        """Whether what arrives is on average what was sent."""
        return self.method == "stochastic"

    def __post_init__(self) -> None:
        levels_fit = 1 <= self.max_level <= 127 if self.method == "uniform" else self.max_level == 0
        if not levels_fit:
            raise ValueError("max_level is 1 to 127 for the method uniform and 0 for every other")
        most = MAX_ERROR_TARGET.get(self.method, 0.0)
        if not min(MIN_ERROR_TARGET, most) <= self.error_target <= most:
            allowed = ", ".join(f"up to {most} for the method {method}" for method, most in MAX_ERROR_TARGET.items())
            raise ValueError(f"error_target is at least {MIN_ERROR_TARGET}, {allowed}, and 0 for every other")
        if not (0 <= self.max_bits <= MAX_BITS if self.method == "dead_zone" else self.max_bits == 0):
            raise ValueError(f"max_bits is 0 to {MAX_BITS} for the method dead_zone and 0 for every other")


_ALL = (
    Profile("lossless", "float32", "25 to 29 bits a parameter; nothing is lost, not a bit"),
    Profile("float16", "float16", "13 to 15 bits a parameter; relative error 5e-4 an element"),
    Profile("int8", "uniform", "about 4 bits a parameter; error about 1e-3, more with outliers", 127),
    Profile(
        "unbiased",
        "stochastic",
        "0.5 to 1.3 bits a parameter; error 1 at random, none on average, so that it needs no error feedback",
        error_target=1.0,
    ),
    Profile("int4", "uniform", "about 0.8 bits a parameter; error about 0.1, more with outliers", 7),
    Profile(
        "compensated",
        "dead_zone",
        "at most 0.42 bits a parameter; error 0.4 or what that allows, which comes later: for releases",
        error_target=0.4,
        max_bits=0.42,
    ),
    Profile(
        "balanced",
        "stochastic",
        "0.1 to 0.45 bits a parameter; error 8 at random, none on average",
        error_target=8.0,
    ),
    Profile(
        "frugal",
        "stochastic",
        "0.06 to 0.25 bits a parameter; error 20 at random, none on average",
        error_target=20.0,
    ),
)
"""Costs are of LeNet deltas in training; an error is `||d - d'||^2 / ||d||^2`."""

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})
"""The named profiles, from the one that loses nothing to the smallest."""

DEFAULT_PROFILE = "balanced"


def find_profile(profile: str | Profile) -> Profile:
    """The named profile, or `profile` itself when it is one already.

    Raises:
        CodecError: when no profile has that name; the hint lists those that exist.
    """
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise CodecError(f"no codec profile is named {profile!r}", f"choose one of {', '.join(PROFILES)}")
    return PROFILES[profile]
