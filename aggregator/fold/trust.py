"""How far the gateways of a fleet are trusted, in one word, and the method that each word stands for."""

from __future__ import annotations

from typing import Literal, TypeAlias

from aggregator.fold.methods import AnyMethod
from aggregator.fold.refereed import Refereed, careful
from aggregator.fold.slots import Slots

Trust: TypeAlias = Literal["fleet", "auto", "hostile"]


def method_for(trust: Trust, start: int) -> AnyMethod:
    """docs/METHODS.md says why it is these.

    Args:
        trust: `fleet` where all gateways are one's own; `hostile` where up to 30 % may lie at any time, and who is
            alone with what it sees may go unheard; `auto` where that is not known, and the losses of the nodes tell.
        start: nodes to be heard before the first step of a fleet that is not trusted; the more, the harder it is for
            fast liars to be the first and the majority.
    """
    if trust == "fleet":
        return Slots()
    return Refereed(start=start) if trust == "auto" else careful(start=start)
